"""Load, kills and long runs of the server and of bulk answering."""
