"""Question answering: windows of long contexts, answers as spans, SQuAD's metrics."""
