"""F1, exact match, cost and latency of a model over question-answering examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import chain
from statistics import fmean
from time import perf_counter

import numpy as np
from tqdm import tqdm

from .checks import require_int
from .errors import DataError, InvalidInputError
from .inference import run_windows
from .length_config import LengthConfig
from .model import LengthAdaptiveModel
from .spans import squad_answer
from .squad import Example, exact_match, f1
from .windows import Window, WindowTokenizer, window_size


@dataclass(frozen=True)
class Evaluation:
    """What a run over examples measured.

    Attributes:
        f1: Mean F1 in percent.
        exact_match: Mean exact match in percent.
        predictions: Answer to each question, in the order of the examples, as everything by question below.
        question_f1: F1 of each question in percent.
        question_exact_match: 100 or 0 for each question.
        question_windows: How many windows each question has.
        question_ms: Time of each question with all its windows, from text to answer, in milliseconds; empty for
            a run in batches, where a question has no time of its own.
        window_lengths: Real tokens of each window, question by question.
        window_kept: For each window, the tokens that each layer passed on.
        mean_macs: Mean executed multiply-accumulates of a window.
    """

    f1: float
    exact_match: float
    predictions: tuple[str, ...]
    question_f1: tuple[float, ...]
    question_exact_match: tuple[float, ...]
    question_windows: tuple[int, ...]
    question_ms: tuple[float, ...]
    window_lengths: tuple[int, ...]
    window_kept: tuple[tuple[int, ...], ...]
    mean_macs: float

    @property
    def mean_length(self) -> float:
        """Mean real tokens of a window."""
        return fmean(self.window_lengths)

    @property
    def mean_kept(self) -> tuple[float, ...]:
        """For each layer, mean tokens of a window that it passed on."""
        return tuple(map(fmean, zip(*self.window_kept, strict=True)))

    def latency_ms(self, percentile: float) -> float | None:
        """A percentile (0 to 100) of the questions' times; None for a run in batches."""
        return float(np.percentile(self.question_ms, percentile)) if self.question_ms else None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, means and the usual percentiles among them."""
        return asdict(self) | {
            "mean_length": self.mean_length,
            "mean_kept": self.mean_kept,
            "latency_p50_ms": self.latency_ms(50),
            "latency_p95_ms": self.latency_ms(95),
        }


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of the examples of several, at least one, of the same length configuration."""
    rows = {
        field.name: tuple(chain.from_iterable(getattr(part, field.name) for part in parts))
        for field in fields(Evaluation)
        if field.name not in ("f1", "exact_match", "mean_macs")
    }
    return Evaluation(
        f1=fmean(rows["question_f1"]),
        exact_match=fmean(rows["question_exact_match"]),
        mean_macs=fmean([part.mean_macs for part in parts], [len(part.window_lengths) for part in parts]),
        **rows,
    )


def evaluate(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
    batch_size: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Answer examples by SQuAD's rules, in windows of 384 tokens that share 128, and score the answers.

    Args:
        model: The model.
        examples: Questions with answers, at least one.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Windows to run at once; above 1 they are sorted by length, which is faster over all.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        DataError: There are no examples, or one has no answer to compare with.
        InvalidInputError: `batch_size` is less than 1, or the model cannot read a question.
        LengthConfigError: Unknown or unfitting length configuration.
    """
    require_int("batch_size", batch_size, 1)
    if not examples:
        raise DataError("there are no examples to evaluate")
    for example in examples:
        if not example.answers:
            raise DataError(f"question {example.id!r} has no answer, and scoring needs one")
    max_seq_len, doc_stride = window_size(model.max_length)
    tokenize = partial(_tokenize, WindowTokenizer(model.tokenizer_file), max_seq_len=max_seq_len, doc_stride=doc_stride)
    num_layers = len(model.resolve(length_config).keep_ratios)
    group_size = 1 if batch_size == 1 else 32 * batch_size  # enough windows to find some of the same length

    predictions: list[str] = []
    seconds: list[float] = []
    question_windows: list[int] = []
    lengths: list[int] = []
    kept: list[tuple[int, ...]] = []
    if batch_size == 1:  # the first call compiles the graph, which is not to count as a question's time
        run_windows(model, [tokenize(examples[0])[:1]], length_config=length_config, batch_size=1)
    with tqdm(total=len(examples), unit="question", disable=None if progress else True) as bar:
        for first in range(0, len(examples), group_size):
            group = examples[first : first + group_size]
            started = perf_counter()
            windows = [tokenize(example) for example in group]
            outputs = run_windows(model, windows, length_config=length_config, batch_size=batch_size)
            predictions += map(squad_answer, (example.context for example in group), windows, outputs)
            seconds.append(perf_counter() - started)
            question_windows += map(len, windows)
            for window, output in zip(chain(*windows), chain(*outputs), strict=True):
                lengths.append(len(window))
                kept.append(output.kept_by_layer(len(window), num_layers))
            bar.update(len(group))

    question_f1 = tuple(map(f1, predictions, (example.answers for example in examples)))
    question_exact_match = tuple(map(exact_match, predictions, (example.answers for example in examples)))
    return Evaluation(
        f1=fmean(question_f1),
        exact_match=fmean(question_exact_match),
        predictions=tuple(predictions),
        question_f1=question_f1,
        question_exact_match=question_exact_match,
        question_windows=tuple(question_windows),
        question_ms=tuple(1e3 * s for s in seconds) if batch_size == 1 else (),
        window_lengths=tuple(lengths),
        window_kept=tuple(kept),
        mean_macs=fmean(map(partial(model.executed_macs, length_config), lengths, kept)),
    )


def _tokenize(tokenizer: WindowTokenizer, example: Example, **size: int) -> list[Window]:
    try:
        return tokenizer(example.question, example.context, **size)
    except InvalidInputError as error:
        raise InvalidInputError(f"question {example.id!r}: {error}") from error
