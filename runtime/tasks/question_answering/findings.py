"""The kinds of problems with questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dynamic_tinybert.runtime.tasks.findings import Finding

EXAMPLES = "questions"
"""What the task's examples are called in messages."""


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
class QuestionFinding(Finding):
    """A problem with a question; `id` is that of the question."""

    def __str__(self) -> str:
        return f"question {self.id!r:.60}: {self.why}"
