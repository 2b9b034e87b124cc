"""What an export of a classifier to INT8 needs of its data."""
