"""F1, exact match, cost and latency of a model over question-answering examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from statistics import fmean
from time import perf_counter

import numpy as np
from tqdm import tqdm

from .checks import require_int
from .errors import DataError, InvalidInputError
from .inference import WindowOutput, run_windows
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
        question_f1: F1 of each question in percent, in the order of the examples.
        question_exact_match: 100 or 0 for each question.
        mean_length: Mean real tokens of a window.
        mean_kept: For each layer, mean tokens of a window that it passed on.
        mean_macs: Mean executed multiply-accumulates of a window.
        latency_p50_ms: Median time of a question with all its windows, from text to answer, in milliseconds;
            None for a run in batches, where a question has no time of its own.
        latency_p95_ms: 95th percentile of the same.
    """

    f1: float
    exact_match: float
    question_f1: tuple[float, ...]
    question_exact_match: tuple[float, ...]
    mean_length: float
    mean_kept: tuple[float, ...]
    mean_macs: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


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
    lengths: list[int] = []
    kept: list[list[int]] = []
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
            for window, output in zip(chain(*windows), chain(*outputs), strict=True):
                lengths.append(len(window))
                kept.append(_kept_by_layer(output, len(window), num_layers))
            bar.update(len(group))

    question_f1 = tuple(map(f1, predictions, (example.answers for example in examples)))
    question_exact_match = tuple(map(exact_match, predictions, (example.answers for example in examples)))
    p50, p95 = np.percentile(np.multiply(seconds, 1e3), (50, 95)).tolist() if batch_size == 1 else (None, None)
    return Evaluation(
        f1=fmean(question_f1),
        exact_match=fmean(question_exact_match),
        question_f1=question_f1,
        question_exact_match=question_exact_match,
        mean_length=fmean(lengths),
        mean_kept=tuple(map(fmean, zip(*kept, strict=True))),
        mean_macs=fmean(map(partial(model.executed_macs, length_config), lengths, kept)),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
    )


def _tokenize(tokenizer: WindowTokenizer, example: Example, **size: int) -> list[Window]:
    try:
        return tokenizer(example.question, example.context, **size)
    except InvalidInputError as error:
        raise InvalidInputError(f"question {example.id!r}: {error}") from error


def _kept_by_layer(output: WindowOutput, length: int, num_layers: int) -> list[int]:
    kept = []
    for layer in range(num_layers):
        length = output.kept.get(layer, length)  # a layer that drops nothing passes on what entered it
        kept.append(length)
    return kept
