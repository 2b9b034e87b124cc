"""Check the positions of a question's answers in its context, and correct wrong ones where possible."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice

from .example import Example
from .findings import Kind, QuestionFinding

_MOST_PLACES = 100  # further occurrences of an answer are not counted


def answer_lacking(example: Example) -> QuestionFinding | None:
    """The problem with a question that has no answer but is not marked unanswerable, or has one although it is marked.

    None if the question has neither problem.
    """
    if example.is_impossible and example.answers:
        why = f"it has the answer {example.answers[0]!r:.60}, but is_impossible is true"
    elif not example.is_impossible and not example.answers:
        why = "it has no answer"
    else:
        return None
    return QuestionFinding(Kind.WITHOUT_ANSWER, example.id, why)


def with_placed_answers(example: Example) -> tuple[Example, list[QuestionFinding]]:
    """The question with corrected answers and positions, and the problems found with them.

    A position that cannot be determined is None. The answers of a question with contradictory labels are removed.
    """
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
    return placed, [QuestionFinding(kind, example.id, worst.why)]


@dataclass(frozen=True, slots=True)
class _Place:
    """The position of an answer in the context.

    Attributes:
        text: The answer as the context spells it.
        start: First character in the context; None if it cannot be determined.
        given: The start that the file gives.
        why: What is wrong with `given`; empty if nothing is.
    """

    text: str
    start: int | None
    given: object
    why: str = ""


def _place(context: str, text: str, start: object) -> _Place:
    """Find an answer at the position that the file gives, whatever the white space, or else where it occurs once."""
    if isinstance(start, int) and _is_at(context, text, start):
        return _Place(text, start, start)
    found = _occurrences(context, text)
    leading = len(text) - len(text.lstrip())
    near = [at for at in found if isinstance(start, int) and at[0] in (start, start + leading)]
    where = f"the answer {text!r:.60} " + (
        "has no answer_start" if start is None else f"is not at its answer_start {start!r:.60}"
    )
    if len(near or found) == 1:
        ((at, own),) = near or found
        return _Place(own, at, start, f"{where}, but {'occurs ' if start is None else ''}at {at}")
    if found:
        times = f"{len(found)} times" if len(found) < _MOST_PLACES else f"at least {_MOST_PLACES} times"
        return _Place(text, None, start, f"{where}, and occurs {times} in the context")
    lacking = " and is not" if start is None else ", nor"
    return _Place(text, None, start, f"{where}{lacking} in the context {context!r:.60}")


def _is_at(context: str, text: str, start: object) -> bool:
    return isinstance(start, int) and not isinstance(start, bool) and start >= 0 and context.startswith(text, start)


def _occurrences(context: str, text: str) -> list[tuple[int, str]]:
    """Start and spelling of each occurrence of a text in the context, whatever the white space between its words."""
    words = r"\s+".join(map(re.escape, text.split()))
    return [(match.start(), match[1]) for match in islice(re.finditer(f"(?=({words}))", context), _MOST_PLACES)]
