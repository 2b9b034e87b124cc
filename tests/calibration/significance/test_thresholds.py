import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample

TOKENS = 1000


def sample(num_layers: int) -> tuple[dict[int, np.ndarray], SignificanceSample]:
    random = np.random.default_rng(0)
    significance = {layer: random.random(TOKENS, np.float32) for layer in range(1, num_layers)}
    return significance, SignificanceSample(significance, num_layers)


@given(st.lists(st.integers(1, 100), min_size=4, max_size=4))
def test_the_shares_asked_for_are_kept(percent: list[int]) -> None:
    shares = (1.0, *(p / 100 for p in sorted(percent, reverse=True)))
    significance, made = sample(5)
    config = made.length_config(Schedule(shares))
    alive = np.ones(TOKENS, bool)
    for layer, threshold in enumerate(config.thresholds):
        if threshold is not None:
            alive = alive & (significance[layer] >= threshold)  # one layer after the other, as the graph does
        assert abs(alive.sum() - shares[layer] * TOKENS) <= 1
    assert config.keep_ratios == (1,) * 5


def test_a_layer_that_keeps_what_it_gets_does_not_select() -> None:
    _, made = sample(4)
    config = made.length_config(Schedule((1, 0.5, 0.5, 0.2)))
    assert config.selecting_layers == (1, 3)
    assert made.length_config(Schedule((1, 1, 1, 1))).selecting_layers == ()


def test_the_rule_applies_wherever_tokens_are_dropped() -> None:
    significance, _ = sample(4)
    made = SignificanceSample(significance, 6, rule_layer=4)
    assert made.length_config(Schedule((1, 0.5, 0.5, 0.2, 0.2, 0.2))).thresholds[4:] == (0.5, None)
    assert made.length_config(Schedule((1,) * 6)).selecting_layers == ()
    assert list(made.layers) == [1, 2, 3]
