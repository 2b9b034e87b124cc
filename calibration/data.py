"""Examples for calibration: separate sets to fit on, to choose on and to report on, of which no two share a group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.measure import Finding, Measure, ReadExamples

FEWEST_EXAMPLES = 50
"""Smallest size of a set: fewer examples cannot tell length configurations apart, nor can scorers be fitted on them."""

ENOUGH_GROUPS = 8
"""Number of groups, such as articles, from which it begins to show how much they differ."""

_ENOUGH_TO_CHOOSE_ON = 300  # examples; a small file gives up to half of those that are not for reporting
_FEW_TO_CHOOSE_ON = 150  # below, the standard error of a loss is about a point
_CHOOSING, _REPORTING = 0.25, 0.15  # shares of a single file
_CHOOSING_BESIDE_TEST = 0.15
_CHOOSING_OF_VALIDATION = 2 / 3

E = TypeVar("E")


@dataclass(frozen=True)
class CalibrationData(Generic[E]):
    """Three sets of examples of which no two share a group, such as an article.

    Attributes:
        fitting: Scorers and thresholds are fitted on these; labels are not used.
        choosing: Length configurations are searched and chosen on these.
        reporting: The figures that are published come from these.
        findings: What is wrong with examples; those that the model cannot read are in none of the sets.
        lines: The findings as messages, one line for each file and kind, and warnings about few groups.
    """

    fitting: Sequence[E]
    choosing: Sequence[E]
    reporting: Sequence[E]
    findings: Sequence[Finding] = ()
    lines: Sequence[str] = ()


def read_calibration_data(
    measure: Measure[E],
    data: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    *,
    seed: int = 0,
    strict: bool = False,
) -> CalibrationData[E]:
    """Read and split the examples of up to three files.

    Args:
        measure: Reads the files, and names the group of each example.
        data: Examples to fit on; without `validation`, some of its groups are set aside for the other purposes.
        validation: Examples to choose on; without `test`, a third of them is set aside for reporting.
        test: Examples to report on.
        seed: Decides which groups are set aside.
        strict: Refuse a file with a faulty example. A file without any labels is accepted.

    Raises:
        DataError: A file cannot be read, a part has too few examples, or `strict` refuses one.
    """
    files: list[ReadExamples[E]] = [
        measure.read(Path(path), strict=strict) for path in (data, validation, test) if path is not None
    ]
    fitting, *others = [file.examples for file in files]
    choosing: Sequence[E]
    reporting: Sequence[E]
    if validation is None:
        ends = _ends_of_single_file(len(fitting), test is not None)
        fitting, choosing, *left = split_by_group(fitting, measure.group_of, ends, seed)
        (reporting,) = left or others
    elif test is None:
        choosing, reporting = split_by_group(others[0], measure.group_of, (_CHOOSING_OF_VALIDATION,), seed)
    else:
        choosing, reporting = others
    parts: dict[str, Sequence[Any]] = {"fitting": fitting, "choosing": choosing, "reporting": reporting}
    for purpose, part in parts.items():
        if len(part) < FEWEST_EXAMPLES:
            sizes = ", ".join(f"{len(examples)} for {name}" for name, examples in parts.items())
            raise DataError(
                f"too few {measure.examples} for {purpose}: {sizes}, and each needs {FEWEST_EXAMPLES}; "
                f"{_what_to_give(measure, data, validation, test)}"
            )
    findings = [finding for file in files for finding in file.findings]
    lines = [line for file in files for line in file.lines]
    warnings = [*_few_to_choose_on(measure, choosing), *_few_groups(measure, choosing, reporting)]
    return CalibrationData(fitting, choosing, reporting, findings, [*lines, *warnings])


def _ends_of_single_file(count: int, test: bool) -> list[float]:
    """Where the parts for fitting and, without a file to test on, for choosing end, as shares of a file's examples."""
    usual, reporting = (_CHOOSING_BESIDE_TEST, 0.0) if test else (_CHOOSING, _REPORTING)
    choosing = min((1 - reporting) / 2, max(usual, _ENOUGH_TO_CHOOSE_ON / max(count, 1)))
    return [1 - reporting - choosing] if test else [1 - reporting - choosing, 1 - reporting]


def _what_to_give(measure: Measure[E], data: str | Path, validation: str | Path | None, test: str | Path | None) -> str:
    """What files must hold so that each part has enough examples."""
    divided, ends = None, [1.0]
    if validation is None:
        divided, ends = data, [*_ends_of_single_file(FEWEST_EXAMPLES, test is not None), 1.0]
    elif test is None:
        divided, ends = validation, [_CHOOSING_OF_VALIDATION, 1.0]
    if divided is None:
        return f"give at least {FEWEST_EXAMPLES} in each file"
    smallest = min(end - start for start, end in zip([0.0, *ends], ends, strict=False))
    number = math.ceil(FEWEST_EXAMPLES / smallest - 1e-6)
    return (
        f"{measure.groups} of {Path(divided).name} are kept whole when it is divided into {len(ends)} parts, so it "
        f"needs at least {number} {measure.examples} and {len(ends)} {measure.groups}, better many more; give more "
        f"{measure.groups}, or separate files as validation and test data"
    )


def _few_to_choose_on(measure: Measure[E], choosing: Sequence[E]) -> list[str]:
    """A warning about so few examples that the fastest configurations among many are those that had luck."""
    if len(choosing) >= _FEW_TO_CHOOSE_ON:
        return []
    return [
        f"Warning: {len(choosing)} {measure.examples} to choose on say little about others, on which named "
        f"configurations may lose a point more than their limits; give at least {_ENOUGH_TO_CHOOSE_ON}"
    ]


def _few_groups(measure: Measure[E], choosing: Sequence[E], reporting: Sequence[E]) -> list[str]:
    """Warnings about parts whose examples come from so few groups that they say little about others."""
    lines = []
    enough = f"give {measure.examples} of at least {ENOUGH_GROUPS} {measure.groups}"
    for purpose, part in {"choose": choosing, "report": reporting}.items():
        names = {measure.group_of(example) for example in part}
        known = f"{len(part)} {measure.examples} to {purpose} on"
        if len(names) == 1:
            lines.append(
                f"Warning: all {known} are of {names.pop()!r:.60}, and none of other {measure.groups}: figures hold "
                f"for {measure.examples} like these, and on other {measure.groups} more may be lost; {enough}"
            )
        elif len(names) < ENOUGH_GROUPS:
            lines.append(
                f"Warning: the {known} are of {len(names)} {measure.groups} only, which say little about others; "
                f"{enough}"
            )
    return lines


def shuffled(items: Sequence[E], seed: int) -> list[E]:
    """Items in an order that the seed decides."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def split_by_group(
    examples: Sequence[E], group_of: Callable[[E], str], ends: Sequence[float], seed: int
) -> list[list[E]]:
    """Deal whole groups of examples to parts, so that no two parts share a group.

    Args:
        examples: The examples.
        group_of: Names the group of an example, such as its article.
        ends: Where each part but the last ends, as a share of all examples, ascending.
        seed: Seed for the order in which groups are dealt.

    Returns:
        One part more than `ends`. No part is empty if there are at least as many groups as parts.
    """
    by_name: defaultdict[str, list[E]] = defaultdict(list)
    for example in examples:
        by_name[group_of(example)].append(example)
    groups = list(by_name.values())
    parts: list[list[E]] = [[] for _ in range(len(ends) + 1)]
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
