"""The encoder of a model, independent of any task: its graph, token selection in it, and its compilation."""
