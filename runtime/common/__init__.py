"""What every folder uses: errors, checks, files that appear whole or not at all, journals of long runs."""
