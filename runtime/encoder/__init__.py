"""The encoder: its graph with token selection in it, compiled; knows no task."""
