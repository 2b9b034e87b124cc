"""Documents compete by early scores: what is dropped, by brute force, and what a margin promises."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from dynamic_tinybert.runtime.tasks.sequence_classification.competition import (
    STEP,
    Scores,
    compete,
    lags,
    needed_margin,
    promising_first,
)

LISTS = some.arrays(np.float32, st.integers(1, 60), elements=st.integers(-20, 20).map(lambda i: i / 4))


@st.composite
def lists_of_scores(draw: st.DrawFn) -> tuple[Scores, Scores, int]:
    """Early scores, final scores with ties, and the number of places."""
    final = draw(LISTS)
    errors = draw(some.arrays(np.float32, len(final), elements=st.integers(-12, 12).map(lambda i: i / 4)))
    return final + errors, final, draw(st.integers(1, 15))


def ranking(final: Sequence[float] | npt.NDArray[np.float32], top_n: int) -> list[int]:
    return sorted(range(len(final)), key=lambda i: -final[i])[:top_n]


def run(early: Scores, final: Scores, top_n: int, margin: float) -> tuple[list[int], list[int]]:
    """The documents that got their final scores, in this order, and the first places among them."""
    asked: list[int] = []

    def finish(indices: Sequence[int]) -> Scores:
        asked.extend(indices)
        return final[list(indices)]

    found = compete(early, finish, top_n, margin)
    assert sorted(found) == sorted(asked)
    assert all(found[i] == final[i] for i in found)
    order = sorted(found)
    return asked, [order[i] for i in ranking([float(found[i]) for i in order], top_n)]


@given(lists_of_scores())
def test_an_infinite_margin_drops_nothing(given_scores: tuple[Scores, Scores, int]) -> None:
    early, final, top_n = given_scores
    asked, top = run(early, final, top_n, np.inf)
    assert sorted(asked) == list(range(len(final)))
    assert top == ranking(final, top_n)


@given(lists_of_scores(), st.integers(0, 40).map(lambda i: i / 4))
def test_a_document_is_dropped_when_it_lags_too_far_behind(
    given_scores: tuple[Scores, Scores, int], margin: float
) -> None:
    early, final, top_n = given_scores
    asked, _ = run(early, final, top_n, margin)
    expected: list[int] = []  # document by document
    order = sorted(range(len(early)), key=lambda i: -early[i])
    for place, i in enumerate(order):
        before = order[: place - (place - top_n) % STEP] if place >= top_n else []
        bar = sorted((float(final[j]) for j in before), reverse=True)[top_n - 1] if before else -np.inf
        if bar - float(early[i]) > margin:
            break
        expected.append(i)
    assert asked == expected
    values = lags(early, final, top_n)
    assert sorted(asked) == [i for i in range(len(final)) if values[i] <= margin]
    assert np.all(np.diff(values[promising_first(early)][top_n:]) >= 0)


@given(lists_of_scores())
def test_the_needed_margin_is_the_smallest_that_changes_nothing(given_scores: tuple[Scores, Scores, int]) -> None:
    early, final, top_n = given_scores
    needed, right = needed_margin(early, final, top_n), ranking(final, top_n)
    tried = sorted({0.0, needed, *(float(lag) for lag in lags(early, final, top_n) if lag > 0)})
    unchanged = [margin for margin in tried if run(early, final, top_n, margin)[1] == right]
    assert unchanged == [margin for margin in tried if margin >= needed]
    assert needed == unchanged[0]


@given(lists_of_scores(), st.integers(1, 15))
def test_a_margin_for_more_places_keeps_fewer_places_too(given_scores: tuple[Scores, Scores, int], fewer: int) -> None:
    early, final, top_n = given_scores
    fewer = min(fewer, top_n)
    _, top = run(early, final, top_n, needed_margin(early, final, top_n))
    assert top[:fewer] == ranking(final, fewer)
