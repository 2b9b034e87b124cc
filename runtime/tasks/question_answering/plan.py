"""Questions that are ready to be run: what stands between the arguments of a call and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .answers import Answer
from .budgets import BudgetedCall
from .inference import WindowOutput, run_windows
from .no_answer import answers_with_threshold
from .options import AnswerOptions
from .windows import Window


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to the questions of a call, and what computing them took.

    Attributes:
        answers: For each question, its answers, best first.
        length_config: Name of the length configuration that ran; None if it has no name.
        tokens: Number of tokens of all windows.
        kept: For each layer, the number of these tokens that it passed on.
    """

    answers: list[list[Answer]]
    length_config: str | None
    tokens: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """Questions, cut into windows, with all that decides how these are run and answers are chosen.

    Attributes:
        contexts: The text of each question.
        windows: The windows of each question.
        options: How answers are chosen, and the number of windows to run at once.
        length_config: Which tokens each layer keeps; None for the model's default.
        no_answer_threshold: The bundle's, if it has one.
        budgeted: The call with a budget that these questions belong to, if it has one.
    """

    contexts: Sequence[str]
    windows: Sequence[Sequence[Window]]
    options: AnswerOptions
    length_config: str | LengthConfig | Sequence[float] | None
    no_answer_threshold: float | None
    budgeted: BudgetedCall | None = None

    def run(self, model: LengthAdaptiveModel) -> list[list[Answer]]:
        """Run the model on the windows; returns the answers of each question, best first."""
        outputs = run_windows(model, self.windows, length_config=self.length_config, batch_size=self.options.batch_size)
        return self.answers(outputs)

    def answered(self, model: LengthAdaptiveModel, outputs: Sequence[Sequence[WindowOutput]]) -> Answered:
        """The answers, and what computing them took, from the model's outputs for the windows."""
        num_layers = model.bundle.shape.num_layers
        pairs = [
            (len(window), output)
            for own_windows, own_outputs in zip(self.windows, outputs, strict=True)
            for window, output in zip(own_windows, own_outputs, strict=True)
        ]
        kept = zip(*(output.kept_by_layer(length, num_layers) for length, output in pairs), strict=True)
        config = model.bundle.default_length_config if self.length_config is None else self.length_config
        return Answered(
            self.answers(outputs),
            config if isinstance(config, str) else None,
            sum(length for length, _ in pairs),
            tuple(map(sum, kept)),
        )

    def answers(self, outputs: Sequence[Sequence[WindowOutput]]) -> list[list[Answer]]:
        """The answers of each question, best first, from the model's outputs for its windows."""
        answers = [
            answers_with_threshold(context, own_windows, own_outputs, self.options, self.no_answer_threshold)
            for context, own_windows, own_outputs in zip(self.contexts, self.windows, outputs, strict=True)
        ]
        if self.budgeted:
            self.budgeted.finish([answer for own in answers for answer in own])
        return answers
