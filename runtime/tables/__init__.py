"""Tables in files, read and written row by row: JSON lines, CSV and Parquet."""
