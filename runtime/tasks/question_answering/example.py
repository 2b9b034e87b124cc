"""One question of a data file."""

from __future__ import annotations

from dataclasses import dataclass

from dynamic_tinybert.runtime.common.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a data file.

    Attributes:
        id: As in the file, as text; made up where the file gives none.
        question: Its text.
        context: The paragraph to answer from.
        answers: Texts that count as right; empty where the file gives none, or where there is none.
        title: Title of the article; empty where the file gives none.
        answer_starts: For each answer its first character in the context, as the file says it; None where it does not.
            Empty if it does for none.
        is_impossible: The context holds no answer, and to give none is right.

    Raises:
        InvalidInputError: There are some `answer_starts`, but not one for each answer.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    title: str
    answer_starts: tuple[object, ...] = ()
    is_impossible: bool = False

    def __post_init__(self) -> None:
        if self.answer_starts and len(self.answer_starts) != len(self.answers):
            raise InvalidInputError(
                f"question {self.id!r:.60} has {len(self.answers)} answers and {len(self.answer_starts)} "
                "answer_starts; give one for each answer, None where it is not known"
            )


def article_of(example: Example) -> str:
    """What tells the article of a question from others: its title, or its context where the file gives no title."""
    return example.title or example.context
