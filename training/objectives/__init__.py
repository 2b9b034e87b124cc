"""What a training teaches: one module for each objective."""
