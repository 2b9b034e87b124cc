"""Tasks: what a model is asked, and how its outputs become answers."""
