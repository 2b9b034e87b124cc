"""Documents compete by early scores: which ones run to the end, by brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from dynamic_tinybert.runtime.tasks.sequence_classification.competition import Scores, lags, staying

LISTS = some.arrays(np.float32, st.integers(1, 60), elements=st.integers(-20, 20).map(lambda i: i / 4))
PLACES = st.integers(1, 15)


@given(LISTS, PLACES, st.integers(0, 40).map(lambda i: i / 4))
def test_documents_stay_that_are_promising_or_not_far_behind(early: Scores, places: int, margin: float) -> None:
    values = early.tolist()
    promising = sorted(range(len(values)), key=lambda i: -values[i])[:places]  # equal ones in their order
    expected = [i for i, value in enumerate(values) if i in promising or max(values) - value <= margin]
    assert staying(early, places, margin) == expected


@given(LISTS, PLACES)
def test_an_infinite_margin_drops_nothing(early: Scores, places: int) -> None:
    assert staying(early, places, np.inf) == list(range(len(early)))


@given(LISTS, PLACES, PLACES, st.integers(0, 40), st.integers(0, 40))
def test_more_places_or_a_wider_margin_drop_no_further_document(
    early: Scores, places: int, more: int, margin: int, wider: int
) -> None:
    kept = set(staying(early, places, margin / 4))
    assert kept <= set(staying(early, places + more, (margin + wider) / 4))


@given(LISTS, PLACES, st.integers(-8, 8))
def test_what_all_documents_share_does_not_matter(early: Scores, places: int, shared: int) -> None:
    np.testing.assert_array_equal(lags(early + np.float32(shared), places), lags(early, places))
