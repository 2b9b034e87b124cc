"""Questions for calibration: what is fitted on, chosen on and reported on, kept apart by article."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.findings import Finding, Kind
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import CheckedQuestions, check_questions
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

FEWEST_QUESTIONS = 50
"""Fewer cannot tell length configurations apart, and fit nothing."""

_FITTING, _CHOOSING = 0.6, 0.25  # shares of one file; the rest is for reporting
_CHOOSING_OF_VALIDATION = 2 / 3

_TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_ANSWER: "scored by agreement with full",
    Kind.MISPLACED: "scored by its text if the context holds it, else by agreement with full",
    Kind.PUT_RIGHT: "put right",
    Kind.SAME_ID: "taken like any other",
}


@dataclass(frozen=True)
class CalibrationData:
    """Three sets of questions of which no two share an article.

    Attributes:
        fitting: Scorers and thresholds are fitted on these; answers are not looked at.
        choosing: Length configurations are searched and chosen on these.
        reporting: The figures that are published come from these.
        findings: What is wrong with questions; those that the model cannot read are in none of the sets.
        lines: The same, a line for each file and kind.
    """

    fitting: Sequence[Example]
    choosing: Sequence[Example]
    reporting: Sequence[Example]
    findings: Sequence[Finding] = ()
    lines: Sequence[str] = ()


def read_calibration_data(
    data: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    *,
    seed: int = 0,
    windows: Windowing | None = None,
    strict: bool = False,
) -> CalibrationData:
    """Read and split the questions of up to three files.

    Args:
        data: Questions to fit on (see `read_squad`); without `validation` a part of its articles is kept for the rest.
        validation: To choose on; without `test` a third of it is kept for reporting.
        test: To report on.
        seed: Decides which articles go where.
        windows: Tells which questions the model can read; the others are left out.
        strict: Refuse a file in which something is wrong with a question. Answers may be missing in all of them.

    Raises:
        DataError: A file cannot be read, a part has too few questions, or `strict` refuses one.
    """
    read = [_read(path, windows, strict) for path in (data, validation, test) if path is not None]
    fitting, *others = [[_with_found_answers(example) for example in file.readable] for file in read]
    if validation is None:
        if test is None:
            fitting, choosing, reporting = split_by_article(fitting, (_FITTING, _FITTING + _CHOOSING), seed)
        else:
            fitting, choosing = split_by_article(fitting, (_FITTING + _CHOOSING,), seed)
            (reporting,) = others
    elif test is None:
        choosing, reporting = split_by_article(others[0], (_CHOOSING_OF_VALIDATION,), seed)
    else:
        choosing, reporting = others
    parts = {"fitting": fitting, "choosing": choosing, "reporting": reporting}
    for purpose, part in parts.items():
        if len(part) < FEWEST_QUESTIONS:
            sizes = ", ".join(f"{len(questions)} for {name}" for name, questions in parts.items())
            raise DataError(
                f"too few questions for {purpose}: {sizes}, and each needs {FEWEST_QUESTIONS}; articles are kept "
                "whole, so give more articles, or files of their own as validation and test data"
            )
    findings = [finding for file in read for finding in file.findings]
    return CalibrationData(fitting, choosing, reporting, findings, [line for file in read for line in file.lines])


def split_by_article(examples: Sequence[Example], ends: Sequence[float], seed: int) -> list[list[Example]]:
    """Deal whole articles, in an order drawn by `seed`, to parts that end at these shares of all questions.

    A context without a title is an article. No part is empty if there are as many articles as parts.
    """
    articles: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        articles[example.title or example.context].append(example)
    groups = list(articles.values())
    parts: list[list[Example]] = [[] for _ in range(len(ends) + 1)]
    dealt = 0
    for left, index in zip(
        range(len(groups), 0, -1), np.random.default_rng(seed).permutation(len(groups)).tolist(), strict=True
    ):
        middle = (dealt + len(groups[index]) / 2) / len(examples)
        filled = sum(map(bool, parts))
        part = min(max(sum(middle >= end for end in ends), len(parts) - left), filled)
        parts[min(part, len(ends))] += groups[index]
        dealt += len(groups[index])
    return parts


def _read(path: str | Path, windows: Windowing | None, strict: bool) -> CheckedQuestions:
    examples = read_squad(path)
    treatment = dict(_TREATMENT)
    if not any(example.answers or example.is_impossible for example in examples):
        del treatment[Kind.WITHOUT_ANSWER]
    return check_questions(examples, treatment, windows, name=Path(path).name, strict=strict)


def _with_found_answers(example: Example) -> Example:
    """Without the answers that are nowhere in the context: no model can give them."""
    there = [i for i, answer in enumerate(example.answers) if answer in example.context]
    if len(there) == len(example.answers):
        return example
    answers, starts = ([column[i] for i in there] for column in (example.answers, example.answer_starts))
    return replace(example, answers=tuple(map(str, answers)), answer_starts=tuple(starts))
