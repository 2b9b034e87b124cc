import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import InvalidInputError


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.960), (0.8, 1.2816)])
def test_interval_of_many_scores_is_that_of_the_normal_distribution(level: float, quantile: float) -> None:
    random = np.random.default_rng(1)
    b = random.uniform(0, 100, 2000)
    a = b + random.normal(2, 10, 2000)
    error = np.std(a - b) / np.sqrt(2000)
    mean, low, high = paired_bootstrap(a, b, samples=3000, level=level)
    assert mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (low - mean) / error == pytest.approx(-quantile, rel=0.06)
    assert (high - mean) / error == pytest.approx(quantile, rel=0.06)


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_bootstrap([3, 4, 9], [1, 2, 7], samples=50) == (2, 2, 2)


def test_repeatable() -> None:
    a, b = np.random.default_rng(0).uniform(size=(2, 30))
    assert paired_bootstrap(a, b, samples=100, seed=4) == paired_bootstrap(a, b, samples=100, seed=4)
    assert paired_bootstrap(a, b, samples=100, seed=4) != paired_bootstrap(a, b, samples=100, seed=5)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2], [1], {}, r"not \(2,\) and \(1,\)"),
        ([], [], {}, r"not \(0,\)"),
        (1, 2, {}, r"not \(\)"),
        ([1], [1], {"samples": 0}, "samples must be an int of at least 1, not 0"),
        ([1], [1], {"level": 95}, "level must be between 0 and 1, not 95"),
    ],
)
def test_bad_input(a: list[float], b: list[float], options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        paired_bootstrap(a, b, **options)


@st.composite
def clustered(draw: st.DrawFn) -> tuple[list[float], list[str]]:
    """Differences of some clusters of various sizes, in random order."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=2, max_size=12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pairs = [
        (float(random.normal(centre, 5)), f"article {k}")
        for k, (size, centre) in enumerate(zip(sizes, random.normal(0, 20, len(sizes)), strict=True))
        for _ in range(size)
    ]
    ordered = [pairs[i] for i in random.permutation(len(pairs))]
    return [value for value, _ in ordered], [name for _, name in ordered]


@settings(deadline=None, max_examples=30)
@given(clustered(), st.integers(0, 9), st.sampled_from([0.6, 0.95]))
def test_whole_clusters_are_resampled(data: tuple[list[float], list[str]], seed: int, level: float) -> None:
    """Against copies of the clusters' examples, put together draw by draw."""
    differences, clusters = data
    members = [
        [d for d, own in zip(differences, clusters, strict=True) if own == name] for name in dict.fromkeys(clusters)
    ]
    random = np.random.default_rng(seed)
    means = []
    for _ in range(200):
        drawn = [value for pick in random.integers(len(members), size=len(members)) for value in members[pick]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    found = paired_bootstrap(
        differences, [0.0] * len(differences), clusters=clusters, samples=200, seed=seed, level=level
    )
    expected = [
        np.mean(differences),
        *(np.interp(q * 199, range(200), means) for q in [0.5 - level / 2, 0.5 + level / 2]),
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_interval_over_clusters_is_scipys(seed: int) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(seed)
    sizes = random.integers(20, 60, 40)
    clusters = [str(k) for k, size in enumerate(sizes) for _ in range(size)]
    a = np.repeat(random.normal(1, 3, 40), sizes) + random.normal(0, 10, sizes.sum())
    _, low, high = paired_bootstrap(a, np.zeros(len(a)), clusters=clusters, samples=5000)
    ends = np.cumsum(sizes)
    sums = np.array([part.sum() for part in np.split(a, ends[:-1])])
    scipys = scipy_stats.bootstrap(
        (sums, sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=5000,
        method="percentile",
        rng=0,
    ).confidence_interval
    width = scipys.high - scipys.low
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=0.04 * width)
    assert paired_bootstrap(a, np.zeros(len(a)), samples=1000)[2] < high  # examples of one article are alike


def test_clusters_of_one_example_are_examples() -> None:
    a = np.random.default_rng(0).normal(size=50)
    names = [f"{k:02}" for k in range(50)]
    with_names = paired_bootstrap(a, np.zeros(50), clusters=names, samples=100)
    assert with_names == pytest.approx(paired_bootstrap(a, np.zeros(50), samples=100))


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (["x", "y"], "one cluster for each of 3 scores, not 2"),
        (["same"] * 3, "all 3 scores are of one cluster, 'same'"),
    ],
)
def test_clusters_that_cannot_be_resampled(clusters: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        paired_bootstrap([1, 2, 3], [0, 0, 0], clusters=clusters)
