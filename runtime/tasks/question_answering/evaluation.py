"""F1, exact match, cost and latency of a model over question-answering examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from statistics import fmean
from time import perf_counter

from tqdm import tqdm

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.findings import Finding, refused
from dynamic_tinybert.runtime.tasks.windows import Window

from .answer_places import answer_lacking
from .evaluation_result import Evaluation
from .example import Example
from .findings import EXAMPLES, Kind
from .inference import WindowOutput, run_windows
from .no_answer import answer_and_no_answer_score
from .options import SQUAD
from .squad import exact_match, f1
from .squad_v2 import ScoredAnswer, score_answer
from .windowing import Windowing

MAX_ANSWER_LEN = SQUAD.max_answer_len
"""Maximum number of tokens of an answer in SQuAD's evaluation."""

TREATMENT = {
    Kind.UNREADABLE: "scored 0",
    Kind.WITHOUT_ANSWER: "left out",
    Kind.MISPLACED: "scored by its text",
    Kind.PUT_RIGHT: "scored by its text",
    Kind.SAME_ID: "scored like any other",
}
"""What an evaluation does about each kind of problem with a question."""


def evaluate(
    model: LengthAdaptiveModel,
    examples: Sequence[Example],
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
    batch_size: int = SQUAD.batch_size,
    max_answer_len: int = MAX_ANSWER_LEN,
    max_seq_len: int | None = None,
    doc_stride: int | None = None,
    no_answer_threshold: float | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Answer examples by SQuAD's rules, in windows, and score the answers.

    If any of the examples is unanswerable, SQuAD v2's rules apply, and questions whose no-answer score is above a
    threshold get the empty answer. Otherwise v1.1's rules apply.

    Args:
        model: The model.
        examples: Questions. A question without an answer that is not marked unanswerable is left out; a question that
            the model cannot read scores 0.
        length_config: Which tokens each layer keeps; None for the model's default.
        batch_size: Windows to run at once; above 1 they are sorted by length, which is faster in total.
        max_answer_len: Maximum number of tokens of an answer.
        max_seq_len: Maximum length of a window in tokens; by default 384, or the model's maximum if that is less.
        doc_stride: Tokens that neighbouring windows share; by default 128, or half of `max_seq_len` if that is less.
        no_answer_threshold: No-answer score above which the answer is empty. By default, if any example is
            unanswerable, the bundle's threshold or else 0; if none is, no answer is empty.
        strict: Raise an error for an example that lacks an answer or that the model cannot read, before anything runs.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        DataError: There is no example to score, the model can read none of them, or `strict` refuses one.
        InvalidInputError: An option is outside its range.
        LengthConfigError: The length configuration is unknown or does not fit the model.
    """
    require_int("batch_size", batch_size, 1)
    require_int("max_answer_len", max_answer_len, 1)
    windows_of = Windowing.of(model, max_seq_len, doc_stride)
    scored, skipped = _to_score(examples, windows_of, strict)
    if no_answer_threshold is None and any(example.is_impossible for example in scored):
        no_answer_threshold = model.bundle.no_answer_threshold or 0.0
    answer = partial(_best_answer, max_answer_len=max_answer_len)
    runs = _run(
        model, scored, windows_of, answer, length_config=length_config, batch_size=batch_size, progress=progress
    )
    if not runs.window_lengths:
        raise windows_of.refuse_all(f"any of the {len(scored)} questions")
    if_answered = tuple(_as_if_answered(example, *own) for example, own in zip(scored, runs.answers, strict=True))
    predictions = tuple(_prediction(answer, score, no_answer_threshold) for answer, score in runs.answers)
    scores = [
        _exact_and_f1(*question, no_answer_threshold) for question in zip(scored, predictions, if_answered, strict=True)
    ]
    question_exact_match, question_f1 = zip(*scores, strict=True)
    return Evaluation(
        ids=tuple(example.id for example in scored),
        predictions=predictions,
        question_f1=question_f1,
        question_exact_match=question_exact_match,
        question_windows=tuple(runs.question_windows),
        question_ms=tuple(1e3 * s for s in runs.seconds) if batch_size == 1 else (),
        window_lengths=tuple(runs.window_lengths),
        window_kept=tuple(runs.window_kept),
        mean_macs=fmean(map(partial(model.executed_macs, length_config), runs.window_lengths, runs.window_kept)),
        no_answer_threshold=no_answer_threshold,
        if_answered=if_answered,
        skipped=(*skipped, *windows_of.unreadable),
    )


def score_f1(
    example: Example, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, no_answer_threshold: float | None
) -> float:
    """F1 in percent of the answer that `evaluate` gives to a question; 0 without windows.

    Args:
        example: The question; it has an answer or is unanswerable.
        windows: All its windows.
        outputs: The model's output for each.
        no_answer_threshold: If given, SQuAD v2's rules apply, and the answer is empty if the no-answer score is above
            the threshold; None for v1.1's rules.
    """
    answer, score = _best_answer(example, windows, outputs, max_answer_len=MAX_ANSWER_LEN)
    prediction = _prediction(answer, score, no_answer_threshold)
    own = _as_if_answered(example, answer, score)
    return _exact_and_f1(example, prediction, own, no_answer_threshold)[1]


@dataclass(frozen=True, slots=True)
class _Runs:
    """What was found and measured for questions and their windows.

    Attributes:
        answers: The best non-empty answer to each question and its score of no answer, as `_best_answer` gives them.
        seconds: Time of each group of questions that has windows, from text to answer.
        question_windows: Number of windows of each question.
        window_lengths: Tokens of each window.
        window_kept: For each window, the tokens that each layer passed on.
    """

    answers: list[tuple[str, float | None]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    question_windows: list[int] = field(default_factory=list)
    window_lengths: list[int] = field(default_factory=list)
    window_kept: list[tuple[int, ...]] = field(default_factory=list)


def _run(
    model: LengthAdaptiveModel,
    scored: Sequence[Example],
    windows_of: Windowing,
    answer: Callable[[Example, Sequence[Window], Sequence[WindowOutput]], tuple[str, float | None]],
    *,
    length_config: str | LengthConfig | Sequence[float] | None,
    batch_size: int,
    progress: bool,
) -> _Runs:
    """Run the windows of all questions; with `batch_size` 1 each question is a group of its own."""
    runs = _Runs()
    num_layers = len(model.resolve(length_config).keep_ratios)
    group_size = 1 if batch_size == 1 else 32 * batch_size  # enough windows to fill batches with similar lengths
    if batch_size == 1:  # the first call compiles the graph, which must not count towards a question's time
        first_readable = next(filter(None, map(windows_of, scored)), list[Window]())
        run_windows(model, [first_readable[:1]], length_config=length_config, batch_size=1)
    with tqdm(total=len(scored), unit="question", disable=None if progress else True) as bar:
        for first in range(0, len(scored), group_size):
            group = scored[first : first + group_size]
            started = perf_counter()
            windows = [windows_of(example) for example in group]
            outputs = run_windows(model, windows, length_config=length_config, batch_size=batch_size)
            runs.answers.extend(map(answer, group, windows, outputs))
            if any(windows):
                runs.seconds.append(perf_counter() - started)
            runs.question_windows.extend(map(len, windows))
            for window, output in zip(chain(*windows), chain(*outputs), strict=True):
                runs.window_lengths.append(len(window))
                runs.window_kept.append(output.kept_by_layer(len(window), num_layers))
            bar.update(len(group))
    return runs


def _to_score(examples: Sequence[Example], windows_of: Windowing, strict: bool) -> tuple[list[Example], list[Finding]]:
    """The examples that can be scored, and the problems of the others."""
    if not examples:
        raise DataError("there are no examples to evaluate")
    lacking = {i: finding for i, example in enumerate(examples) if (finding := answer_lacking(example)) is not None}
    scored = [example for i, example in enumerate(examples) if i not in lacking]
    if not scored:
        raise DataError(f"none of the {len(examples)} questions can be scored; {lacking[0]}")
    if strict:
        for finding in lacking.values():
            raise refused(finding, EXAMPLES)
        for example in scored:
            if not windows_of(example):
                raise refused(windows_of.unreadable[-1], EXAMPLES)
    return scored, list(lacking.values())


def _best_answer(
    example: Example, windows: Sequence[Window], outputs: Sequence[WindowOutput], *, max_answer_len: int
) -> tuple[str, float | None]:
    """The best non-empty answer and the no-answer score; empty and None for a question without windows."""
    if not windows:
        return "", None
    return answer_and_no_answer_score(example.context, windows, outputs, max_answer_len=max_answer_len)


def _as_if_answered(example: Example, answer: str, no_answer_score: float | None) -> ScoredAnswer:
    """The score of a question if its best non-empty answer is given, whatever the no-answer score is."""
    exact, f1_of_answer = (0.0, 0.0) if no_answer_score is None else score_answer(answer, example.answers)
    return ScoredAnswer(exact, f1_of_answer, not example.is_impossible, no_answer_score)


def _prediction(answer: str, no_answer_score: float | None, threshold: float | None) -> str:
    is_empty = threshold is not None and no_answer_score is not None and no_answer_score > threshold
    return "" if is_empty else answer


def _exact_and_f1(example: Example, prediction: str, own: ScoredAnswer, threshold: float | None) -> tuple[float, float]:
    """Exact match and F1 of the answer that is given."""
    if own.no_answer_score is None:
        return 0.0, 0.0
    if threshold is not None or not example.answers:
        return score_answer(prediction, example.answers)
    return exact_match(prediction, example.answers), f1(prediction, example.answers)
