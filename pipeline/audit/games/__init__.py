"""Games against the private mechanism itself: the lower bound on epsilon that its releases show."""
