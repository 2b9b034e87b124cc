"""An answer together with the tokens and words that each layer dropped: the result of `explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from dynamic_tinybert.runtime.length_config import LengthConfig

from .answers import Answer

Segment = Literal["question", "context"]


@dataclass(frozen=True, slots=True)
class ExplainedToken:
    """A token of a window.

    Attributes:
        text: The token as the vocabulary spells it.
        segment: The text that it comes from; None for special tokens.
        start: First character in that text; None for special tokens.
        end: End in that text in characters, exclusive; None for special tokens.
        dropped_at: The layer that dropped it; None if every layer kept it.
    """

    text: str
    segment: Segment | None
    start: int | None
    end: int | None
    dropped_at: int | None


@dataclass(frozen=True, slots=True)
class ExplainedWord:
    """A word or punctuation mark of a window.

    Attributes:
        text: The word as the text spells it.
        segment: The text that it comes from.
        start: First character in that text.
        end: End in that text in characters, exclusive.
        dropped_at: The layer that dropped the last remaining token of the word; None if a token of it was never
            dropped.
    """

    text: str
    segment: Segment
    start: int
    end: int
    dropped_at: int | None


@dataclass(frozen=True, slots=True)
class ExplainedWindow:
    """The question and one stretch of the context.

    Attributes:
        kept: For each layer, the number of tokens that it kept.
        tokens: All tokens that the model read.
        words: The words of the question, followed by those of the context.
    """

    kept: tuple[int, ...]
    tokens: tuple[ExplainedToken, ...]
    words: tuple[ExplainedWord, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer, and the tokens that each layer dropped on the way to it.

    Attributes:
        question: The question.
        context: The text to answer from.
        answer: The best answer.
        answer_window: Index of the window that the answer comes from. If several windows contain the answer, it is the
            one that gives it the largest score.
        length_config_name: Name of the length configuration in the bundle; None if it has no name.
        length_config: The length configuration as it is executed (`LengthAdaptiveModel.resolve`).
        macs: Executed multiply-accumulates over all windows.
        full_macs: Multiply-accumulates that `full` would execute.
        windows: One window, or several that overlap if the context is long.
    """

    question: str
    context: str
    answer: Answer
    answer_window: int
    length_config_name: str | None
    length_config: LengthConfig
    macs: int
    full_macs: int
    windows: tuple[ExplainedWindow, ...]

    @property
    def macs_fewer(self) -> float:
        """MACs of `full` divided by the executed MACs."""
        return self.full_macs / self.macs

    def to_dict(self) -> dict[str, object]:
        """Plain values that can be written as JSON."""
        return asdict(self) | {"macs_fewer": self.macs_fewer}
