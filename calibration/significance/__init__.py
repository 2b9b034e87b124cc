"""Learnt significance: scorers fitted on a frozen model, and their thresholds."""
