"""Shared by all folders: errors, checks, files that appear whole or not at all, and journals of long runs."""
