"""Dropped documents: the early heads of a reranker, and the margins that bound the risk of dropping."""
