"""What is wrong with the questions of a file, and what of it can be put right: one place for all commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError

from .example import Example
from .windows import Window, WindowTokenizer, window_size


class Kind(StrEnum):
    """What can be wrong with questions, as it is said of many."""

    UNREADABLE = "cannot be read by the model"
    WITHOUT_ANSWER = "have no answer"
    MISPLACED = "have an answer that is not where the file says and cannot be put right"
    PUT_RIGHT = "have an answer that is not where the file says, but elsewhere"
    WITHOUT_PLACE = "have an answer of which the file does not say where it is"
    SAME_ID = "have the id of another one"


Treatment = Mapping[Kind, str]
"""What is done about the kinds that matter."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a question.

    Attributes:
        kind: What it is.
        id: Of the question.
        why: In words, for people.
    """

    kind: Kind
    id: str
    why: str

    def __str__(self) -> str:
        return f"question {self.id!r:.60}: {self.why}"


class QuestionWindows:
    """Cuts questions into windows, and keeps in mind which of them the model cannot read."""

    def __init__(
        self,
        tokenizer: WindowTokenizer | Path,
        max_length: int,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> None:
        """Cut windows of the sizes that `window_size` gives for these arguments.

        Raises:
            BundleCorruptError: `tokenizer` is a file that cannot be read.
            InvalidInputError: A size is outside its range.
        """
        self._tokenize = tokenizer if isinstance(tokenizer, WindowTokenizer) else WindowTokenizer(tokenizer)
        self.max_seq_len, self.doc_stride = window_size(max_length, max_seq_len, doc_stride)
        self._unreadable: dict[tuple[str, str, str], Finding] = {}  # a question may be asked for many times

    def __call__(self, example: Example) -> list[Window]:
        """All windows of a question; none if the model cannot read it: it is too long, or without a token."""
        try:
            return self._tokenize(
                example.question, example.context, max_seq_len=self.max_seq_len, doc_stride=self.doc_stride
            )
        except InvalidInputError as error:
            key = (example.id, example.question, example.context)
            self._unreadable.pop(key, None)
            self._unreadable[key] = Finding(Kind.UNREADABLE, example.id, str(error))
            return []

    @property
    def unreadable(self) -> tuple[Finding, ...]:
        """The questions so far that the model cannot read, each once, in the order in which they were last met."""
        return tuple(self._unreadable.values())

    def refuse_all(self, questions: str) -> DataError:
        """The error where the model can read none of some questions, named as after "cannot read"."""
        why = self.unreadable[-1].why if self._unreadable else "there are none"  # others may be of other questions
        return DataError(f"the model cannot read {questions}: {why}")


def readable_windows(windows_of: QuestionWindows, examples: Iterable[Example]) -> list[Window]:
    """All windows of the questions that the model can read."""
    return [window for example in examples for window in windows_of(example)]


@dataclass(frozen=True)
class CheckedQuestions:
    """Questions after the checks.

    Attributes:
        examples: All of them. `answer_starts` is a place for each answer that has one, put right where that was
            possible, else None; where a question has answers and is said to have none, they are gone.
        findings: What is wrong with some, question by question.
        unreadable: Whether the model cannot read it, for each question.
        lines: For each kind that was found a line about it, for people.
    """

    examples: Sequence[Example]
    findings: Sequence[Finding]
    unreadable: Sequence[bool]
    lines: Sequence[str]

    @property
    def readable(self) -> list[Example]:
        """Those that the model can read."""
        return [example for example, bad in zip(self.examples, self.unreadable, strict=True) if not bad]


def check_questions(
    examples: Sequence[Example],
    treatment: Treatment,
    windows: QuestionWindows | None = None,
    *,
    name: str,
    strict: bool = False,
) -> CheckedQuestions:
    """Look for what is wrong with questions of one file.

    Args:
        examples: The questions.
        treatment: The kinds that matter here; others are not found.
        windows: Tells which questions the model can read; None if all are taken as readable.
        name: Of the file, for people.
        strict: Refuse the questions if anything is wrong with one.

    Raises:
        DataError: `strict`, and something is wrong with a question, the first of which is named.
    """
    checked: list[Example] = []
    findings: list[Finding] = []
    unreadable: list[bool] = []
    seen: set[str] = set()
    for example in examples:
        found: list[Finding] = []
        unreadable.append(windows is not None and not windows(example))
        if windows is not None and unreadable[-1]:
            found.append(replace(windows.unreadable[-1], id=example.id))
        example, of_answers = _with_placed_answers(example)
        found += of_answers
        if example.id in seen:
            found.append(Finding(Kind.SAME_ID, example.id, "a question before it has the same id"))
        seen.add(example.id)
        found = [finding for finding in found if finding.kind in treatment]
        if strict and found:
            raise refused(found[0], name)
        checked.append(example)
        findings += found
    return CheckedQuestions(checked, findings, unreadable, summary(findings, len(examples), treatment, name))


def answer_lacking(example: Example) -> Finding | None:
    """Found if it has no answer and is not said to be unanswerable, or if it has one and is said to be."""
    if example.is_impossible and example.answers:
        why = f"it has the answer {example.answers[0]!r:.60}, and is_impossible says that there is none"
    elif not example.is_impossible and not example.answers:
        why = "it has no answer"
    else:
        return None
    return Finding(Kind.WITHOUT_ANSWER, example.id, why)


def refused(finding: Finding, name: str = "") -> DataError:
    """The error of what is told to be strict."""
    place = f"{name}, " if name else ""
    return DataError(f"{place}{finding}; correct it, or leave out `strict` to have such questions counted")


def summary(findings: Iterable[Finding], total: int, treatment: Treatment, name: str) -> list[str]:
    """A line for each kind that was found: how many questions of `total`, what is done about them, and the first."""
    lines = []
    findings = list(findings)
    for kind, done in treatment.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            lines.append(f"{name}: {len(own)} of {total} questions {kind} ({done}); the first is {own[0]}")
    return lines


def _with_placed_answers(example: Example) -> tuple[Example, list[Finding]]:
    """The question with its answers where they are, and what is wrong with these."""
    lacking = answer_lacking(example)
    if lacking is not None:
        return replace(example, answers=(), answer_starts=(), is_impossible=False), [lacking]
    given = example.answer_starts or (None,) * len(example.answers)
    places = [_place(example.context, text, start) for text, start in zip(example.answers, given, strict=True)]
    wrong = [place for place in places if place.why]
    if not wrong:
        return example, []
    placed = replace(
        example,
        answers=tuple(place.text for place in places),
        answer_starts=tuple(place.start for place in places),
    )
    worst = min(wrong, key=lambda place: (place.given is None, place.start is not None))
    placeable = Kind.MISPLACED if worst.start is None else Kind.PUT_RIGHT
    kind = Kind.WITHOUT_PLACE if worst.given is None else placeable
    return placed, [Finding(kind, example.id, worst.why)]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an answer is.

    Attributes:
        text: As the context has it.
        start: None if that is not plain.
        given: The start that the file gives.
        why: What is wrong with that; empty if nothing is.
    """

    text: str
    start: int | None
    given: object
    why: str = ""


def _is_at(context: str, text: str, start: object) -> bool:
    return isinstance(start, int) and not isinstance(start, bool) and start >= 0 and context.startswith(text, start)


def _place(context: str, text: str, start: object) -> _Place:
    """Find an answer where the file says, whatever its white space is, or where else its text stands once."""
    if isinstance(start, int) and _is_at(context, text, start):
        return _Place(text, start, start)
    words = r"\s+".join(map(re.escape, text.split()))
    found = [(match.start(), match[1]) for match in islice(re.finditer(f"(?=({words}))", context), _MOST_PLACES)]
    leading = len(text) - len(text.lstrip())
    near = [at for at in found if isinstance(start, int) and at[0] in (start, start + leading)]
    where = f"the answer {text!r:.60} " + (
        "has no answer_start" if start is None else f"is not at its answer_start {start!r:.60}"
    )
    if len(near or found) == 1:
        ((at, own),) = near or found
        return _Place(own, at, start, f"{where}, but {'stands ' if start is None else ''}at {at}")
    if found:
        times = f"{len(found)} times" if len(found) < _MOST_PLACES else f"at least {_MOST_PLACES} times"
        return _Place(text, None, start, f"{where}, and stands {times} in the context")
    lacking = " and is not" if start is None else ", nor"
    return _Place(text, None, start, f"{where}{lacking} in the context {context!r:.60}")


_MOST_PLACES = 100
