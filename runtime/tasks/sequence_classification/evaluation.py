"""Score, cost and latency of a classifier over the texts of a data file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from time import perf_counter

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime.batches import kept_by_layer
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.measured_run import MeasuredRun

from .example import Example
from .inference import TextOutput, logits_of, run_texts
from .labels import Floats, Labels
from .tokens import TextTokens

_GROUP = 256  # texts that are sorted by length together


@dataclass(frozen=True)
class Evaluation(MeasuredRun):
    """The results of an evaluation; an id is the place of a text in its file.

    Attributes:
        metric: Name of the score: "accuracy" or "closeness".
        logits: The logits of each text, one for each label.
        scores: Score of each text in points, 0 to 100.
        text_ms: Time of each text, from text to logits, in milliseconds; empty for a run in batches, which does not
            time single texts.
        labels: The number that the data gives for each text, for a model with one output; None where there is none.
    """

    metric: str
    logits: tuple[tuple[float, ...], ...]
    scores: tuple[float, ...]
    text_ms: tuple[float, ...]
    labels: tuple[float | None, ...] = ()

    @property
    def means(self) -> dict[str, float]:
        """The means that a bundle's manifest records."""
        return {self.metric: fmean(self.scores)}

    @property
    def example_ms(self) -> tuple[float, ...]:
        """Time of each text in milliseconds; empty for a run in batches."""
        return self.text_ms

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation of the output with the labels; None without at least two different labels."""
        known = [(own[0], label) for own, label in zip(self.logits, self.labels, strict=False) if label is not None]
        if len({label for _, label in known}) < 2 or len({logit for logit, _ in known}) < 2:
            return None
        return float(np.corrcoef(np.array(known).T)[0, 1])

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and percentiles included."""
        return super().to_dict() | {"correlation": self.correlation}


@dataclass(frozen=True, slots=True)
class TextRuns:
    """What was found and measured for texts, in their order.

    Attributes:
        outputs: The model's output for each.
        seconds: Time of each, from text to logits; empty for a run in batches.
        lengths: Tokens of each.
        kept: For each, the tokens that each layer passed on.
    """

    outputs: list[TextOutput] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)


def run_examples(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    tokens_of: Callable[[Example], TextTokens],
    labels: Labels,
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
    batch_size: int,
    progress: bool = False,
) -> TextRuns:
    """Run examples that the model can read; with `batch_size` 1 one after the other, each with its time."""
    runs = TextRuns()
    num_layers = len(model.resolve(length_config).keep_ratios)
    options: Mapping[str, object] = {"length_config": length_config, "batch_size": batch_size}
    if batch_size == 1 and examples:  # the first call compiles the graph, which must not count towards a text's time
        run_texts(model, [tokens_of(examples[0])], labels, **options)  # type: ignore[arg-type]
    group_size = 1 if batch_size == 1 else _GROUP
    with tqdm(total=len(examples), unit="text", disable=None if progress else True) as bar:
        for first in range(0, len(examples), group_size):
            group = examples[first : first + group_size]
            started = perf_counter()
            sequences = [tokens_of(example) for example in group]
            outputs = run_texts(model, sequences, labels, length_config=length_config, batch_size=batch_size)
            if batch_size == 1:
                runs.seconds.append(perf_counter() - started)
            runs.outputs.extend(outputs)
            for sequence, output in zip(sequences, outputs, strict=True):
                runs.lengths.append(len(sequence))
                runs.kept.append(kept_by_layer(output.kept, len(sequence), num_layers))
            bar.update(len(group))
    return runs


def evaluation_of(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    runs: TextRuns,
    labels: Labels,
    metric: str,
    scores: Floats,
    length_config: str | LengthConfig | Sequence[float] | None,
) -> Evaluation:
    """The evaluation of runs whose scores are known, float [n] in points."""
    macs = (model.executed_macs(length_config, n, own) for n, own in zip(runs.lengths, runs.kept, strict=True))
    numbers = [example.label if isinstance(example.label, float) else None for example in examples]
    return Evaluation(
        metric=metric,
        ids=tuple(example.id for example in examples),
        logits=tuple(tuple(map(float, own)) for own in logits_of(runs.outputs)),
        scores=tuple(map(float, scores)),
        text_ms=tuple(1e3 * seconds for seconds in runs.seconds),
        window_lengths=tuple(runs.lengths),
        window_kept=tuple(runs.kept),
        mean_macs=fmean(macs),
        labels=tuple(numbers) if labels.kind == "score" else (),
    )
