"""The server's page: a person asks, moves the budget, and sees which words each layer dropped."""
