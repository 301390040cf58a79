"""What became of the rows of a file, and its piece that is kept from one reading to the next."""
