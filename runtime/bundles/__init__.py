"""Bundles: their files, their manifest, where they are found, and what is refused of them."""
