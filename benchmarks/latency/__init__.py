"""Time, throughput and memory of a bundle that serves requests."""
