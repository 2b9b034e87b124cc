"""INT8 ranges and weights by Intel Neural Compressor."""
