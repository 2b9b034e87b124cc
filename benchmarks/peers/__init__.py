"""The systems that benchmarks/against_peers.py compares, and how it measures them."""
