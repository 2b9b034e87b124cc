"""One labelled text, or pair of texts, of a data file."""

from __future__ import annotations

from dataclasses import dataclass

Label = int | float | frozenset[int]
"""Index of a class; the number itself for a model with one output; the indices of all labels that hold."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts of a data file.

    Attributes:
        id: Its place in the file, for messages.
        text: The text, or the first of a pair, such as a query.
        text_pair: The second text of a pair.
        label: What is right; None if the file does not say, or says what the model cannot give.
        group: Examples of one group are never split between data to choose on and data to report on; empty if the file
            names none.
    """

    id: str
    text: str
    text_pair: str | None = None
    label: Label | None = None
    group: str = ""


def group_of(example: Example) -> str:
    """Identifies the group of an example: by default the first text, so that the documents of a query stay together."""
    return example.group or example.text
