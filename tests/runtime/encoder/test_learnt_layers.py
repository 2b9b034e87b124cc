import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import LengthConfigError
from dynamic_tinybert.runtime.encoder.learnt_layers import LearntLayers
from dynamic_tinybert.runtime.length_config import LengthConfig

EMBEDDED = LearntLayers(frozenset({0, 1, 2, 3}), frozenset({4}))  # as the bundle in the package
RATIOS = (0.82, 0.65, 0.63, 0.41, 0.37, 0.09)


@pytest.mark.parametrize(
    ("scorers", "rules", "expected"),
    [
        ({0, 1, 2, 3}, {4}, RATIOS),
        ({0}, set(), RATIOS),
        ({2}, set(), (1, 1, *RATIOS[2:])),
        ({2}, {1}, (1, 1, *RATIOS[2:])),  # a rule ranks no tokens
        ({5}, set(), (1, 1, 1, 1, 1, 0.09)),
        (set(), {4}, (1, 1, 1, 1, 1, 1)),
        (set(), set(), (1, 1, 1, 1, 1, 1)),
    ],
)
def test_before_the_first_scorer_all_tokens_go_on(
    scorers: set[int], rules: set[int], expected: tuple[float, ...]
) -> None:
    learnt = LearntLayers(frozenset(scorers), frozenset(rules))
    assert learnt.carried_out(LengthConfig(RATIOS)) == LengthConfig(expected)


def test_the_first_scorer_drops_what_layers_before_it_could_not() -> None:
    config = LearntLayers(frozenset({1}), frozenset()).carried_out(LengthConfig((0.5, 0.5, 0.5)))
    assert config.selecting_layers == (1,)


@pytest.mark.parametrize("layer", [0, 3])
def test_a_threshold_needs_a_scorer_of_its_own(layer: int) -> None:
    learnt = LearntLayers(frozenset({1}), frozenset({2}))
    thresholds = [None, 0.5, 0.5, None]
    assert learnt.carried_out(LengthConfig((1,) * 4, tuple(thresholds))).thresholds == tuple(thresholds)
    thresholds[layer] = 0.5
    with pytest.raises(LengthConfigError, match=rf"layers \[{layer}\] have a threshold .* only layers \[1, 2\] can"):
        learnt.carried_out(LengthConfig((1,) * 4, tuple(thresholds)))


@pytest.mark.parametrize(
    ("ratios", "thresholds", "computed"),
    [
        ((1, 1, 1, 1, 1, 1), {}, {}),
        (RATIOS, {}, {0: False, 1: False, 2: False, 3: False, 4: True}),
        ((1, 1, 1, 1, 1, 1), {0: 0.2, 3: 0.1, 4: 0.5}, {0: False, 3: False, 4: False}),  # as calibration makes them
        ((1, 1, 1, 1, 1, 1), {0: 0.2, 4: 0.5}, {0: False, 4: False}),  # the rule alone needs no ranking
        ((1, 1, 1, 1, 0.5, 0.5), {}, {3: False, 4: True}),  # layer 3 ranks, though it keeps all
        ((1, 1, 1, 1, 0.5, 0.5), {4: 0.5}, {3: False, 4: True}),
        ((1, 1, 1, 1, 1, 1), {4: 1.5}, {3: False, 4: True}),
        ((1, 1, 1, 1, 1, 0.5), {}, {3: False, 4: True}),  # layer 5 goes by what layer 4 says
        ((1, 1, 1, 1, 1, 0.5), {4: 0.5}, {3: False, 4: True}),
        ((1, 0.5, 0.5, 0.5, 0.5, 0.5), {}, {1: False}),
    ],
)
def test_only_scorers_that_are_needed_are_computed(
    ratios: tuple[float, ...], thresholds: dict[int, float], computed: dict[int, bool]
) -> None:
    config = LengthConfig(ratios, tuple(thresholds.get(i) for i in range(6)))
    assert EMBEDDED.computed(config, 6) == computed


def test_the_elastic_graph_asks_all() -> None:
    assert EMBEDDED.computed(None, 6) == {0: False, 1: False, 2: False, 3: False, 4: True}
    assert EMBEDDED.selecting(6) == (0, 1, 2, 3, 4, 5)
    assert LearntLayers(frozenset({2}), frozenset({0})).selecting(4) == (0, 2, 3)
    assert LearntLayers(frozenset(), frozenset()).selecting(4) == ()


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_whatever_selects_has_a_layer_to_go_by(scorers: set[int], rules: set[int], ratios: list[float]) -> None:
    learnt = LearntLayers(frozenset(scorers - rules), frozenset(rules))
    config = learnt.carried_out(LengthConfig(tuple(sorted(ratios, reverse=True))))
    computed = learnt.computed(config, 6)
    for layer in config.selecting_layers:
        (source, *_) = (i for i in reversed(range(layer + 1)) if i in scorers | rules)
        assert source in computed
    assert set(config.selecting_layers) <= set(learnt.selecting(6))
