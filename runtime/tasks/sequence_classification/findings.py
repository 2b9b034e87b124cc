"""Problems with the texts of a data file, and how they are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dynamic_tinybert.runtime.common.errors import DataError


class Kind(StrEnum):
    """Kinds of problems; the values complete the sentence "3 of 9 texts …"."""

    UNREADABLE = "cannot be read"
    WITHOUT_LABEL = "have no label"
    UNKNOWN_LABEL = "have a label that the model does not have"
    CUT = "are longer than the model reads"


Treatment = Mapping[Kind, str]
"""The kinds of problems that matter to a command, and what it does about each, in words."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with a text.

    Attributes:
        kind: Kind of problem.
        id: Place of the text in the file.
        why: Description for people.
    """

    kind: Kind
    id: str
    why: str

    def __str__(self) -> str:
        return f"{self.id}: {self.why}"


def refused(finding: Finding, name: str) -> DataError:
    """The error to raise for a problem in the file `name` if the caller asked for strict checks."""
    return DataError(f"{name}, {finding}; correct it, or leave out `strict` to have such texts only reported")


def summary(findings: Iterable[Finding], total: int, treatment: Treatment, name: str) -> list[str]:
    """Summarize problems in one line per kind: how many texts, what is done about them, and the first one.

    Args:
        findings: Problems.
        total: Number of texts that were checked.
        treatment: The kinds to report, and what is done about each.
        name: Name of the file.
    """
    lines = []
    findings = list(findings)
    for kind, done in treatment.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            lines.append(f"{name}: {len(own)} of {total} texts {kind} ({done}); the first is {own[0]}")
    return lines
