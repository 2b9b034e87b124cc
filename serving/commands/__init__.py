"""Commands of the command line that serve."""
