"""Which tokens are dropped, and what that costs in F1: significance, search and training."""
