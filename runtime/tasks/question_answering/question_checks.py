"""Read the questions of a data file and check them, in the same way for all commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynamic_tinybert.runtime.tasks.findings import refused, summary

from .answer_places import with_placed_answers
from .example import Example
from .findings import EXAMPLES, Kind, QuestionFinding, Treatment
from .squad_files import read_squad
from .windowing import Windowing


@dataclass(frozen=True)
class CheckedQuestions:
    """Questions after the checks.

    Attributes:
        examples: All questions. `answer_starts` has the position of each answer, corrected where possible, or None if
            it cannot be determined. If a question has answers but is marked unanswerable, its answers are removed.
        findings: Problems, question by question.
        unreadable: For each question, whether the model is unable to read it.
        lines: A summary to print, with a line for each kind of problem that was found.
    """

    examples: Sequence[Example]
    findings: Sequence[QuestionFinding]
    unreadable: Sequence[bool]
    lines: Sequence[str]

    @property
    def readable(self) -> list[Example]:
        """The questions that the model can read."""
        return [example for example, bad in zip(self.examples, self.unreadable, strict=True) if not bad]


def read_questions(
    path: str | Path,
    treatment: Treatment,
    windowing: Windowing | None = None,
    *,
    limit: int | None = None,
    strict: bool = False,
) -> CheckedQuestions:
    """Read the questions of a file (see `read_squad`) and check them (see `check_questions`).

    Raises:
        DataError: The file cannot be read or holds no questions, or `strict` is set and a question has a problem.
        InvalidInputError: `limit` is less than 1.
    """
    examples = read_squad(path, limit=limit)
    return check_questions(examples, treatment, windowing, name=Path(path).name, strict=strict)


def check_questions(
    examples: Sequence[Example],
    treatment: Treatment,
    windowing: Windowing | None = None,
    *,
    name: str,
    strict: bool = False,
) -> CheckedQuestions:
    """Look for problems with the questions of one file.

    Args:
        examples: The questions.
        treatment: The kinds of problems that matter here; others are not reported.
        windowing: Determines which questions the model can read; None if all count as readable.
        name: Name of the file, for messages.
        strict: Raise an error for the first problem.

    Raises:
        DataError: `strict` is set, and a question has a problem.
    """
    checked: list[Example] = []
    findings: list[QuestionFinding] = []
    unreadable: list[bool] = []
    seen: set[str] = set()
    for example in examples:
        found: list[QuestionFinding] = []
        unreadable.append(windowing is not None and not windowing(example))
        if windowing is not None and unreadable[-1]:
            found.append(replace(windowing.unreadable[-1], id=example.id))
        example, of_answers = with_placed_answers(example)
        found += of_answers
        if example.id in seen:
            found.append(QuestionFinding(Kind.SAME_ID, example.id, "an earlier question has the same id"))
        seen.add(example.id)
        found = [finding for finding in found if finding.kind in treatment]
        if strict and found:
            raise refused(found[0], EXAMPLES, name)
        checked.append(example)
        findings += found
    return CheckedQuestions(checked, findings, unreadable, summary(findings, len(examples), treatment, EXAMPLES, name))
