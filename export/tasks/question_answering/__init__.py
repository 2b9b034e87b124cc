"""Question answering's part of an export: the data that INT8 is calibrated and compared on."""
