"""Processes that run the model, and the pool that hands jobs to them."""
