"""The search for length configurations by measured latency and accuracy."""
