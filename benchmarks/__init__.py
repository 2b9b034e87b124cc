"""Benchmarks of the package; README.md lists them. Run from the repository's root: python -m benchmarks.FOLDER.NAME."""
