"""Code that all subpackages share: errors, checks, atomic publishing of folders, and journals of long runs."""
