"""Questions for calibration: what is fitted on, chosen on and reported on, kept apart by article."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.errors import DataError
from dynamic_tinybert.runtime.squad import Example, read_squad

FEWEST_QUESTIONS = 50
"""Fewer cannot tell length configurations apart, and fit nothing."""

_FITTING, _CHOOSING = 0.6, 0.25  # shares of one file; the rest is for reporting
_CHOOSING_OF_VALIDATION = 2 / 3


@dataclass(frozen=True)
class CalibrationData:
    """Three sets of questions of which no two share an article.

    Attributes:
        fitting: Scorers and thresholds are fitted on these; answers are not looked at.
        choosing: Length configurations are searched and chosen on these.
        reporting: The figures that are published come from these.
    """

    fitting: Sequence[Example]
    choosing: Sequence[Example]
    reporting: Sequence[Example]


def read_calibration_data(
    data: str | Path, validation: str | Path | None = None, test: str | Path | None = None, *, seed: int = 0
) -> CalibrationData:
    """Read and split the questions of up to three files.

    Args:
        data: SQuAD v1.1 JSON to fit on; without `validation` a part of its articles is kept for the rest.
        validation: To choose on; without `test` a third of it is kept for reporting.
        test: To report on.
        seed: Decides which articles go where.

    Raises:
        DataError: A file cannot be read, an answer is not in its context, or a part has too few questions.
    """
    fitting = _read(data)
    if validation is None:
        if test is None:
            fitting, choosing, reporting = _split(fitting, (_FITTING, _FITTING + _CHOOSING), seed)
        else:
            fitting, choosing = _split(fitting, (_FITTING + _CHOOSING,), seed)
            reporting = _read(test)
    elif test is None:
        choosing, reporting = _split(_read(validation), (_CHOOSING_OF_VALIDATION,), seed)
    else:
        choosing, reporting = _read(validation), _read(test)
    parts = {"fitting": fitting, "choosing": choosing, "reporting": reporting}
    for purpose, part in parts.items():
        if len(part) < FEWEST_QUESTIONS:
            sizes = ", ".join(f"{len(questions)} for {name}" for name, questions in parts.items())
            raise DataError(
                f"too few questions for {purpose}: {sizes}, and each needs {FEWEST_QUESTIONS}; articles are kept "
                "whole, so give more articles, or files of their own as validation and test data"
            )
    return CalibrationData(fitting, choosing, reporting)


def _read(path: str | Path) -> list[Example]:
    examples = read_squad(path)
    for example in examples:
        for answer in example.answers:
            if answer not in example.context:
                raise DataError(
                    f"{path}: the answer {answer!r:.60} of question {example.id!r} is not in its context "
                    f"{example.context!r:.60}; correct it, or leave all answers out to score by agreement"
                )
    return examples


def _split(examples: Sequence[Example], ends: Sequence[float], seed: int) -> list[list[Example]]:
    """Deal whole articles, in an order drawn by `seed`, to parts that end at these shares of all questions."""
    articles: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        articles[example.title or example.context].append(example)
    groups = list(articles.values())
    parts: list[list[Example]] = [[] for _ in range(len(ends) + 1)]
    dealt = 0
    for index in np.random.default_rng(seed).permutation(len(groups)):
        middle = (dealt + len(groups[index]) / 2) / len(examples)
        parts[sum(middle >= end for end in ends)] += groups[index]
        dealt += len(groups[index])
    return parts
