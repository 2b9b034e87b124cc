"""SQuAD v1.1's metrics; those of v2 are in `squad_v2`. Also re-exports `Example` and `read_squad`."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from .example import Example
from .squad_files import read_squad

__all__ = ["Example", "exact_match", "f1", "normalize", "read_squad"]


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """100 if the prediction equals one of `answers` (at least one) after SQuAD's normalisation, else 0."""
    return 100.0 * (normalize(prediction) in map(normalize, answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 in percent between the words of the prediction and those of the best match in `answers` (at least one)."""
    return max(_f1(normalize(prediction).split(), normalize(answer).split()) for answer in answers)


def normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, without ASCII punctuation, English articles and superfluous white space."""
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _f1(predicted: list[str], expected: list[str]) -> float:
    common = (Counter(predicted) & Counter(expected)).total()
    return 200.0 * common / (len(predicted) + len(expected)) if common else 0.0
