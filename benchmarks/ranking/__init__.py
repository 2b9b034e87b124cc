"""Rankings and rerankers."""
