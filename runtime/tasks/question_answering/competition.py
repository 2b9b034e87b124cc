"""Run the windows of long contexts so that those which can no longer win leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import batches_of, rows_of, stack
from dynamic_tinybert.runtime.bundles.competition import WindowCompetition
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.stages import FirstStage, StagedModel

from .contest import Contest
from .inference import WindowOutput, output_of, run_windows
from .matching import matches
from .options import AnswerOptions
from .spans import advantages
from .windows import Window


@dataclass(slots=True)
class Outcome:
    """What became of a window.

    Attributes:
        window: The window.
        kept: For each layer, the number of tokens that it passed on; 0 from the layer on in which the window left.
        output: The model's output; None if the window left.
    """

    window: Window
    kept: tuple[int, ...]
    output: WindowOutput | None = None

    def macs(self, model: LengthAdaptiveModel, length_config: str | LengthConfig | None) -> int:
        """Multiply-accumulates that were executed; 0 if the window left before the first layer."""
        ran = any(self.kept) or self.output is not None
        return model.executed_macs(length_config, len(self.window), self.kept) if ran else 0


class Competitions:
    """Runs competing windows with a model. Thread-safe and fork-safe."""

    def __init__(self, model: LengthAdaptiveModel) -> None:
        """Run with a loaded model; both stages of a length configuration are compiled when it is first used."""
        self._model = model
        self._staged: dict[str, StagedModel] = {}

    def run(
        self,
        questions: Sequence[Sequence[Window]],
        length_config: str | LengthConfig | Sequence[float] | None,
        options: AnswerOptions,
    ) -> list[list[Outcome]]:
        """Run the windows of each question until no other one can win.

        Args:
            questions: The windows of each question.
            length_config: As for `LengthAdaptiveModel.__call__`. All windows run to the end unless it is the name of
                one for which the bundle has a competition.
            options: `top_k`, `max_answer_len` and `batch_size` count.

        Returns:
            What became of each window.
        """
        name = self._model.bundle.default_length_config if length_config is None else length_config
        named = self._model.length_configs.get(name) if isinstance(name, str) else None
        if named is None or named.competition is None:
            return self._run_all(questions, length_config, options)
        staged = self.staged(str(name), named.competition)
        return _Run(staged, named.competition, questions, options).outcomes()

    def staged(self, name: str, rules: WindowCompetition) -> StagedModel:
        """The two stages of a length configuration."""
        if name not in self._staged:  # two threads may both compile; one result stays
            layer = rules.after_layer
            made = StagedModel(self._model, name, after_layer=layer, before_feed_forward=True)
            self._staged.setdefault(name, made)
        return self._staged[name]

    def _run_all(
        self,
        questions: Sequence[Sequence[Window]],
        length_config: str | LengthConfig | Sequence[float] | None,
        options: AnswerOptions,
    ) -> list[list[Outcome]]:
        outputs = run_windows(self._model, questions, length_config=length_config, batch_size=options.batch_size)
        num_layers = self._model.bundle.shape.num_layers
        return [
            [
                Outcome(window, output.kept_by_layer(len(window), num_layers), output)
                for window, output in zip(own, own_outputs, strict=True)
            ]
            for own, own_outputs in zip(questions, outputs, strict=True)
        ]


def importances(first: FirstStage, lengths: Sequence[int]) -> npt.NDArray[np.float64]:
    """For each row of a first stage, the logit of its most important token of the context, [B].

    Args:
        first: The rows, of windows.
        lengths: Number of tokens of each window.
    """
    significance, positions = first.significance, first.scored_positions
    assert significance is not None  # a competition needs a scorer
    assert positions is not None
    last = np.array(lengths)[:, None] - 1  # of [SEP], which does not count
    most = np.where((positions < last) & ~np.isnan(significance), significance, 0).max(1).astype(np.float64)
    most = np.clip(most, 1e-9, 1 - 1e-7)
    logits: npt.NDArray[np.float64] = np.log(most / (1 - most))
    return logits


class _Run:
    """The contests of some questions, which run side by side so that batches are full."""

    def __init__(
        self,
        staged: StagedModel,
        rules: WindowCompetition,
        questions: Sequence[Sequence[Window]],
        options: AnswerOptions,
    ) -> None:
        self._staged = staged
        self._options = options
        self._num_layers = len(staged.length_config.keep_ratios)
        self._contests = [Contest(rules, matches(own), options.top_k) for own in questions]
        self._outcomes = [[Outcome(window, (0,) * self._num_layers) for window in own] for own in questions]

    def outcomes(self) -> list[list[Outcome]]:
        while rounds := {i: now for i, c in enumerate(self._contests) if (now := c.next_round())}:
            running = [(question, index) for question, now in rounds.items() for index in now]
            firsts = dict(self._first(running))
            staying = []
            for question, now in rounds.items():
                importance = [firsts[question, index][1] for index in now]
                staying += [(question, now[i]) for i in self._contests[question].staying(importance)]
            self._later({key: firsts[key][0] for key in staying})
        return self._outcomes

    def _window(self, key: tuple[int, int]) -> Window:
        question, index = key
        return self._outcomes[question][index].window

    def _batches(self, keys: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        lengths = [len(self._window(key)) for key in keys]
        for batch in batches_of(lengths, self._options.batch_size):
            yield [keys[i] for i in batch]

    def _first(
        self, keys: Sequence[tuple[int, int]]
    ) -> Iterable[tuple[tuple[int, int], tuple[tuple[FirstStage, int], float]]]:
        """Run the first stage; each window's row, and its importance. The layers before the cut are noted."""
        cut = self._staged.after_layer
        for batch in self._batches(keys):
            windows = [self._window(key) for key in batch]
            lengths = [len(window) for window in windows]
            first = self._staged.first(**stack(windows))
            kept = {layer: (where < first.length).sum(1) for layer, where in first.kept_positions.items()}
            for row, (key, importance) in enumerate(zip(batch, importances(first, lengths), strict=True)):
                passed, by_layer = lengths[row], []
                for layer in range(cut):
                    passed = int(kept[layer][row]) if layer in kept else passed
                    by_layer.append(passed)
                outcome = self._outcomes[key[0]][key[1]]
                outcome.kept = (*by_layer, *(0,) * (self._num_layers - cut))
                yield key, ((first, row), float(importance))

    def _later(self, rows: dict[tuple[int, int], tuple[FirstStage, int]]) -> None:
        """Run the later stage, and note what it finds."""
        for batch in self._batches(list(rows)):
            joined = FirstStage.joined([first.rows([row]) for first, row in (rows[key] for key in batch)])
            lengths = [len(self._window(key)) for key in batch]
            outputs = rows_of(self._staged.later(joined), lengths, output_of)
            for (question, index), length, output in zip(batch, lengths, outputs, strict=True):
                outcome = self._outcomes[question][index]
                outcome.output, outcome.kept = output, output.kept_by_layer(length, self._num_layers)
                spans = advantages(
                    outcome.window, output, count=self._options.top_k, max_answer_len=self._options.max_answer_len
                )
                self._contests[question].note(spans)
