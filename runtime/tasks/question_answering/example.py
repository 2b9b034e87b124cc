"""One question of a data file."""

from __future__ import annotations

from dataclasses import dataclass

from dynamic_tinybert.runtime.common.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a data file.

    Attributes:
        id: Id in the file, as text; generated if the file has none.
        question: Text of the question.
        context: The paragraph to answer from.
        answers: Texts that count as correct; empty if the file has none or the question is unanswerable.
        title: Title of the article; empty if the file has none.
        answer_starts: For each answer the position of its first character in the context, as the file gives it, or None
            if the file gives none. Empty if the file gives none for any answer.
        is_impossible: Whether the context contains no answer, so that the empty answer is correct.

    Raises:
        InvalidInputError: `answer_starts` is not empty and differs from `answers` in length.
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
    """Identifies the article of a question: its title, or the question's context if the file gives no title."""
    return example.title or example.context
