"""Which tasks look worth learning together: affinity, exact partition, and the label-only control beside them."""
