"""Find when the windows of long contexts may leave, from questions without answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import rows_of, stack
from dynamic_tinybert.runtime.bundles.competition import WindowCompetition
from dynamic_tinybert.runtime.common.errors import DataError, LengthConfigError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.stages import StagedModel
from dynamic_tinybert.runtime.tasks.question_answering.competition import importances
from dynamic_tinybert.runtime.tasks.question_answering.contest import Contest
from dynamic_tinybert.runtime.tasks.question_answering.inference import output_of
from dynamic_tinybert.runtime.tasks.question_answering.matching import matches
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE
from dynamic_tinybert.runtime.tasks.question_answering.spans import advantages
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

LEAST_WINDOWS = 8
"""A question with fewer windows says little about which windows of a long context may leave."""

LEAST_QUESTIONS = 50
"""Fewer questions cannot tell one changed answer in fifty from none."""

SAME_ANSWERS = 0.985
"""Share of the questions whose answer must stay; above the 98 % that are promised, because it is chosen on them."""

_MARGINS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 1e6)
_SURE = tuple(range(-4, 21))
_MATCH = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)


@dataclass(frozen=True)
class WindowsOfQuestion:
    """The windows of one question, all of which have run.

    Attributes:
        match: How well each matches the question, see `matches`, [n].
        importance: The logit of its most important token of the context, [n].
        advantage: Its best span's advantage over no answer, [n].
        place: The characters of this span.
        first_macs: Multiply-accumulates of a window that leaves, [n].
        macs: Multiply-accumulates of a window that stays, [n].
    """

    match: npt.NDArray[np.float64]
    importance: npt.NDArray[np.float64]
    advantage: npt.NDArray[np.float64]
    place: tuple[tuple[int, int], ...]
    first_macs: npt.NDArray[np.float64]
    macs: npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedCompetition:
    """A competition, and what it does to the questions that it was fitted on.

    Attributes:
        rules: The competition.
        same_answers: Share of the questions with the answer of all windows.
        macs_share: Executed multiply-accumulates, divided by those of all windows; mean over questions.
        questions: Number of questions.
    """

    rules: WindowCompetition
    same_answers: float
    macs_share: float
    questions: int


def leaving_layer(model: LengthAdaptiveModel, name: str) -> int:
    """The layer in which windows leave: the second that selects by a threshold, or the only one.

    Later layers tell windows better, and more has been computed by then; `docs/decisions/0062` has the figures.

    Raises:
        LengthConfigError: No layer but the last does so, or the model has no scorers.
    """
    thresholds = model.resolve(name).thresholds[:-1]
    layers = [layer for layer, threshold in enumerate(thresholds) if threshold is not None]
    if not layers or model.bundle.significance != "learnt":
        raise LengthConfigError(
            f"{name!r} has no layer whose scorer drops tokens by a threshold, so nothing says which windows may leave"
        )
    return layers[:2][-1]


def run_all_windows(
    model: LengthAdaptiveModel, name: str, questions: Iterable[tuple[str, str]], *, after_layer: int
) -> list[WindowsOfQuestion]:
    """Run all windows of questions about long contexts; those with fewer than `LEAST_WINDOWS` windows are left out.

    Args:
        model: A question-answering model.
        name: Name of a length configuration.
        questions: Each a question and its context.
        after_layer: The layer in which windows may leave.
    """
    windowing = Windowing.of(model)
    staged = StagedModel(model, name, after_layer=after_layer, before_feed_forward=True)
    found = []
    for question, context in questions:
        windows = windowing.cut(question, context)
        if len(windows) < LEAST_WINDOWS:
            continue
        importance, macs, first_macs, best = [], [], [], []
        for begin in range(0, len(windows), PIPELINE.batch_size):
            batch = windows[begin : begin + PIPELINE.batch_size]
            lengths = [len(window) for window in batch]
            first = staged.first(**stack(batch))
            importance += importances(first, lengths).tolist()
            for window, output in zip(batch, rows_of(staged.later(first), lengths, output_of), strict=True):
                kept = output.kept_by_layer(len(window), len(staged.length_config.keep_ratios))
                left = (*kept[:after_layer], *(0,) * (len(kept) - after_layer))
                macs.append(model.executed_macs(name, len(window), kept))
                first_macs.append(model.executed_macs(name, len(window), left))
                best += advantages(window, output, count=1, max_answer_len=PIPELINE.max_answer_len).items()
        place, advantage = zip(*best, strict=True)
        numbers = (np.array(values, np.float64) for values in (importance, advantage, first_macs, macs))
        own_importance, own_advantage, own_first, own_macs = numbers
        found.append(WindowsOfQuestion(matches(windows), own_importance, own_advantage, place, own_first, own_macs))
    return found


def fit_competition(
    questions: Sequence[WindowsOfQuestion], *, after_layer: int, same_answers: float = SAME_ANSWERS
) -> FittedCompetition:
    """The competition that needs the fewest multiply-accumulates while enough questions keep their answer.

    Args:
        questions: From `run_all_windows`.
        after_layer: As there.
        same_answers: Least share of the questions that keep it.

    Raises:
        DataError: There are fewer than `LEAST_QUESTIONS` questions.
    """
    if len(questions) < LEAST_QUESTIONS:
        raise DataError(
            f"{len(questions)} questions have contexts of {LEAST_WINDOWS} windows or more, but {LEAST_QUESTIONS} are "
            "needed to find which windows may leave; give longer contexts, or more of them"
        )
    best: FittedCompetition | None = None
    for margin, sure, match in product(_MARGINS, _SURE, _MATCH):
        fitted = replayed(questions, WindowCompetition(after_layer, margin, float(sure), match))
        if fitted.same_answers >= same_answers and (best is None or fitted.macs_share < best.macs_share):
            best = fitted
    if best is None:
        raise DataError(f"no competition keeps the answers of {same_answers:.1%} of {len(questions)} questions")
    return best


def replayed(questions: Sequence[WindowsOfQuestion], rules: WindowCompetition) -> FittedCompetition:
    """What a competition does to questions all of whose windows have run."""
    same, shares = 0, []
    for question in questions:
        contest, macs = Contest(rules, question.match), 0.0
        best, answer = -np.inf, None
        while now := contest.next_round():
            staying = [now[i] for i in contest.staying(question.importance[now].tolist())]
            macs += float(
                question.first_macs[[i for i in now if i not in staying]].sum() + question.macs[staying].sum()
            )
            for index in staying:
                contest.note({question.place[index]: float(question.advantage[index])})
                if question.advantage[index] > best:
                    best, answer = float(question.advantage[index]), question.place[index]
        same += answer == question.place[int(question.advantage.argmax())]
        shares.append(macs / question.macs.sum())
    return FittedCompetition(rules, same / len(questions), float(np.mean(shares)), len(questions))
