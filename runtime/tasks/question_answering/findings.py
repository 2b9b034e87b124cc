"""Problems with the questions of a data file, and how they are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dynamic_tinybert.runtime.common.errors import DataError


class Kind(StrEnum):
    """Kinds of problems; the values complete the sentence "3 of 9 questions …"."""

    UNREADABLE = "cannot be read by the model"
    WITHOUT_ANSWER = "have no answer"
    MISPLACED = "have an answer that is not where the file says and cannot be corrected"
    PUT_RIGHT = "have an answer that is not where the file says, but elsewhere"
    WITHOUT_PLACE = "have an answer without a position in the file"
    SAME_ID = "have the same id as another question"


Treatment = Mapping[Kind, str]
"""The kinds of problems that matter to a command, and what it does about each, in words."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with a question.

    Attributes:
        kind: Kind of problem.
        id: Id of the question.
        why: Description for people.
    """

    kind: Kind
    id: str
    why: str

    def __str__(self) -> str:
        return f"question {self.id!r:.60}: {self.why}"


def refused(finding: Finding, name: str = "") -> DataError:
    """The error to raise for a problem if the caller asked for strict checks.

    Args:
        finding: The problem.
        name: Name of the file; empty if the questions come from no file.
    """
    place = f"{name}, " if name else ""
    return DataError(f"{place}{finding}; correct it, or leave out `strict` to have such questions only reported")


def summary(findings: Iterable[Finding], total: int, treatment: Treatment, name: str) -> list[str]:
    """Summarize problems in one line per kind: how many questions, what is done about them, and the first one.

    Args:
        findings: Problems.
        total: Number of questions that were checked.
        treatment: The kinds to report, and what is done about each.
        name: Name of the file.
    """
    lines = []
    findings = list(findings)
    for kind, done in treatment.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            lines.append(f"{name}: {len(own)} of {total} questions {kind} ({done}); the first is {own[0]}")
    return lines
