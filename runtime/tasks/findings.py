"""Problems with the examples of a data file, and how they are reported. The kinds of problems are each task's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from dynamic_tinybert.runtime.common.errors import DataError

Kind = TypeVar("Kind", bound=StrEnum)
"""A task's kinds of problems; the values complete the sentence "3 of 9 questions …"."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with an example.

    Attributes:
        kind: Kind of problem.
        id: Id of the example, or its place in the file.
        why: Description for people.
    """

    kind: StrEnum
    id: str
    why: str

    def __str__(self) -> str:
        return f"{self.id}: {self.why}"


def refused(finding: Finding, examples: str, name: str = "") -> DataError:
    """The error to raise for a problem if the caller asked for strict checks.

    Args:
        finding: The problem.
        examples: What the task's examples are called, in the plural.
        name: Name of the file; empty if the examples come from no file.
    """
    place = f"{name}, " if name else ""
    return DataError(f"{place}{finding}; correct it, or leave out `strict` to have such {examples} only reported")


def summary(
    findings: Iterable[Finding], total: int, treatment: Mapping[Kind, str], examples: str, name: str
) -> list[str]:
    """Summarize problems in one line per kind: how many examples, what is done about them, and the first one.

    Args:
        findings: Problems.
        total: Number of examples that were checked.
        treatment: The kinds to report, and what is done about each.
        examples: What the task's examples are called, in the plural.
        name: Name of the file.
    """
    lines = []
    findings = list(findings)
    for kind, done in treatment.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            lines.append(f"{name}: {len(own)} of {total} {examples} {kind} ({done}); the first is {own[0]}")
    return lines
