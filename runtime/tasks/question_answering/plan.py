"""Questions that are ready to be run: what stands between the arguments of a call and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.windows import Window

from .answers import Answer
from .budgets import BudgetedCall
from .competition import priors, run_competing
from .inference import WindowOutput, run_windows
from .no_answer import answers_with_threshold
from .options import AnswerOptions


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
        length_config: Which tokens each layer keeps; None for the model's default, or for what the budget chooses.
        no_answer_threshold: The bundle's, if it has one.
        budgeted: The call with a budget that these questions belong to, if it has one.
    """

    contexts: Sequence[str]
    windows: Sequence[Sequence[Window]]
    options: AnswerOptions
    length_config: str | LengthConfig | Sequence[float] | None
    no_answer_threshold: float | None
    budgeted: BudgetedCall | None = None

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each window, of all questions in order."""
        return [len(window) for own in self.windows for window in own]

    def run(self, model: LengthAdaptiveModel) -> list[list[Answer]]:
        """Run the model on the windows; returns the answers of each question, best first."""
        config, size = self.length_config, self.options.batch_size
        if self.budgeted:
            config = self.budgeted.choose(self.lengths, size)
        if self.options.compete:
            return self.answers(run_competing(model, self.windows, self.options, length_config=config))
        return self.answers(run_windows(model, self.windows, length_config=config, batch_size=size))

    def answered(
        self,
        model: LengthAdaptiveModel,
        outputs: Sequence[WindowOutput],
        config: str | LengthConfig | Sequence[float] | None,
    ) -> Answered:
        """The answers, and what computing them took.

        Args:
            model: What ran.
            outputs: Its output for each window, of all questions in order.
            config: The length configuration at which it ran; None for the model's default.
        """
        num_layers = model.bundle.shape.num_layers
        kept = [output.kept_by_layer(length, num_layers) for length, output in zip(self.lengths, outputs, strict=True)]
        config = model.bundle.default_length_config if config is None else config
        each = iter(outputs)
        return Answered(
            self.answers([list(islice(each, len(own))) for own in self.windows]),
            config if isinstance(config, str) else None,
            sum(self.lengths),
            tuple(map(sum, zip(*kept, strict=True))),
        )

    def answers(self, outputs: Sequence[Sequence[WindowOutput | None]]) -> list[list[Answer]]:
        """The answers of each question, best first, from the model's outputs for its windows.

        Of windows that compete, those that were left out have None.
        """
        answers = [self._answers_of(*own) for own in zip(self.contexts, self.windows, outputs, strict=True)]
        if self.budgeted:
            self.budgeted.finish(answers)
        return answers

    def _answers_of(
        self, context: str, windows: Sequence[Window], outputs: Sequence[WindowOutput | None]
    ) -> list[Answer]:
        every_prior = priors(windows).tolist() if self.options.compete else [0.0] * len(windows)
        columns = zip(windows, outputs, every_prior, strict=True)
        ran = [(window, output, prior) for window, output, prior in columns if output is not None]
        return answers_with_threshold(
            context,
            [window for window, _, _ in ran],
            [output for _, output, _ in ran],
            self.options,
            self.no_answer_threshold,
            [prior for _, _, prior in ran] if self.options.compete else None,
        )
