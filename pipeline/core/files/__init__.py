"""Files that are whole or not there, their owner's alone, chained line by line, or larger than memory."""
