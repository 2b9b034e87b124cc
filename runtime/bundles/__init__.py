"""Bundles: their files and manifest, how they are found, and the checks before they are used."""
