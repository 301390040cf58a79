"""How alike tasks look: sample-wise affinity, the gradient bank, and what is read from it."""
