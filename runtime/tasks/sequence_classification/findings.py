"""The kinds of problems with texts."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Kinds of problems; the values complete the sentence "3 of 9 texts …"."""

    UNREADABLE = "cannot be read"
    WITHOUT_LABEL = "have no label"
    UNKNOWN_LABEL = "have a label that the model does not have"
    CUT = "are longer than the model reads"
