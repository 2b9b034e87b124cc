import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from dynamic_tinybert.calibration.search import latency
from dynamic_tinybert.calibration.search.latency import (
    LatencyTable,
    executed_lengths,
    interleaved_ms,
    measure_latency,
    spread,
    spread_by_length,
)
from dynamic_tinybert.calibration.search.latency_fitting import fit_latency_model
from dynamic_tinybert.calibration.search.latency_model import LatencyModel
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.tiny import tiny_bert, tiny_tokenizer, write_tiny_bundle

LAYERS = 4
# milliseconds, of the size that they have on a real machine
TRUE = {
    "call": 0.9,
    "layer_row": 4e-3,
    "layer_square": 3e-6,
    "selection": 0.06,
    "selection_row": 3e-3,
    "selection_square": 5e-6,
    "selection_kept_row": 2e-3,
}


def up(length: int) -> int:
    return math.ceil(length / LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def naive_terms(config: LengthConfig, length: int, kept: list[int]) -> Counter[str]:
    """What one window executes, layer by layer."""
    terms = Counter(call=1)
    rows = up(length)
    for ratio, threshold, after in zip(config.keep_ratios, config.thresholds, kept, strict=True):
        if ratio == 1 and threshold is None:
            terms += Counter(layer_row=rows, layer_square=rows * rows)
            continue
        terms += Counter(selection=1, selection_row=rows, selection_square=rows * rows, selection_kept_row=after)
        rows = after
    return terms


def naive_ms(config: LengthConfig, length: int, kept: list[int]) -> float:
    return sum(TRUE[term] * count for term, count in naive_terms(config, length, kept).items())


def random_config(generator: np.random.Generator) -> LengthConfig:
    selects = generator.random(LAYERS) < 0.6
    return LengthConfig((1,) * LAYERS, tuple(0.5 if s else None for s in selects))


def random_kept(generator: np.random.Generator, config: LengthConfig, lengths: np.ndarray) -> np.ndarray:
    kept, before = [], lengths
    for layer in range(LAYERS):
        if layer in config.selecting_layers:
            before = np.maximum(1, (before * generator.uniform(0.3, 1, len(before))).astype(int))
        kept.append(before)
    return np.stack(kept, axis=1)


def synthetic_table(count: int, noise: float, seed: int) -> LatencyTable:
    """Times that follow `TRUE`, with noise relative to each."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 385, 40)
    configs = [LengthConfig.full(LAYERS), *(random_config(generator) for _ in range(count - 1))]
    kept = np.stack([random_kept(generator, config, lengths) for config in configs])
    ms = [
        [naive_ms(c, n, k) for n, k in zip(lengths, own.tolist(), strict=True)]
        for c, own in zip(configs, kept, strict=True)
    ]
    return LatencyTable(tuple(configs), lengths, kept, np.array(ms) * generator.normal(1, noise, (count, 40)))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(TRUE)))
def test_prediction_adds_up_what_a_loop_over_layers_counts(seed: int, term: str) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 513, 5)
    config = random_config(generator)
    kept = random_kept(generator, config, lengths)
    model = LatencyModel(dict.fromkeys(TRUE, 0.0) | {term: 0.25}, 0.0)
    expected = [0.25 * naive_terms(config, n, k)[term] for n, k in zip(lengths, kept.tolist(), strict=True)]
    assert model.predict(config, lengths, kept).tolist() == expected


def test_fit_predicts_configurations_that_it_has_not_seen() -> None:
    model = fit_latency_model(synthetic_table(12, noise=0.02, seed=0))
    assert model.median_error < 0.01
    for seed in range(1, 4):
        unseen = synthetic_table(10, noise=0, seed=seed)
        for config, kept, ms in zip(unseen.configs, unseen.kept, unseen.ms, strict=True):
            assert model.predict(config, unseen.lengths, kept).mean() == pytest.approx(ms.mean(), rel=0.01)


def test_error_is_that_of_configurations_left_out() -> None:
    table = synthetic_table(5, noise=0.3, seed=1)
    terms = np.array(
        [
            [[naive_terms(c, n, k)[term] for term in TRUE] for n, k in zip(table.lengths, own.tolist(), strict=True)]
            for c, own in zip(table.configs, table.kept, strict=True)
        ]
    )

    def solve(chosen: list[int]) -> np.ndarray:
        """Least squares of the relative errors, by another solver."""
        relative = np.concatenate([terms[c] / table.ms[c][:, None] for c in chosen])
        scale = relative.max(0)
        solution: np.ndarray = lsq_linear(relative / scale, np.ones(len(relative)), (0, np.inf), tol=1e-14).x / scale
        return solution

    errors = []
    for i in range(5):
        coefficients = solve([j for j in range(5) if j != i])
        errors.append(abs((terms[i] @ coefficients).mean() / table.ms[i].mean() - 1))
    model = fit_latency_model(table)
    assert sorted(errors)[2] > 0.005  # else there is nothing to see
    assert model.median_error == pytest.approx(sorted(errors)[2], rel=1e-3)
    predicted = [model.predict(c, table.lengths, k) for c, k in zip(table.configs, table.kept, strict=True)]
    np.testing.assert_allclose(predicted, terms @ solve(list(range(5))), rtol=1e-3)


def test_coefficients_are_never_negative() -> None:
    model = fit_latency_model(synthetic_table(6, noise=0.5, seed=3))
    assert min(model.coefficients.values()) >= 0


def test_prediction_needs_no_scipy() -> None:
    """A service predicts; only calibration fits."""
    program = f"""
import sys
sys.modules["scipy"] = None
from dynamic_tinybert.calibration.search.latency_model import LatencyModel
from dynamic_tinybert.runtime.length_config import LengthConfig
print(LatencyModel({TRUE!r}, 0.0).predict(LengthConfig((1.0,)), [8], [[8]])[0])
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) == pytest.approx(0.9 + 8 * 4e-3 + 64 * 3e-6)


def test_model_goes_through_json() -> None:
    model = fit_latency_model(synthetic_table(6, noise=0.1, seed=0))
    assert LatencyModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model


def test_model_of_other_terms_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"not \['call'\].*measure this machine again"):
        LatencyModel.from_dict({"coefficients": {"call": 1.0}, "median_error": 0.1})


def test_prediction_needs_the_models_layers() -> None:
    with pytest.raises(LengthConfigError, match="2 keep ratios"):
        LatencyModel(TRUE, 0.0).predict(LengthConfig.full(2), [10], [[10, 10, 10]])


def test_fit_needs_two_configurations() -> None:
    with pytest.raises(InvalidInputError, match="at least 2 measured configurations, not 1"):
        fit_latency_model(synthetic_table(1, noise=0, seed=0))


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(latency, "perf_counter", lambda: self.now)


@pytest.mark.parametrize("num_windows", [1, 8, 19])
def test_times_are_medians_of_requests_that_take_turns(monkeypatch: pytest.MonkeyPatch, num_windows: int) -> None:
    clock = Clock(monkeypatch)
    seen: list[tuple[int, int]] = []

    def request(i: int) -> Callable[[int], None]:
        def run(window: int) -> None:
            seen.append((i, window))
            disturbed = seen.count((i, window)) == 2  # once of at least five times
            clock.now += (9.0 if disturbed else 1.0) * (1 + i) * (1 + window)

        return run

    ms = interleaved_ms([request(i) for i in range(3)], num_windows, repeats=5)
    expected = [[1000.0 * (1 + i) * (1 + window) for window in range(num_windows)] for i in range(3)]
    np.testing.assert_allclose(ms, expected)
    assert {pair: count >= 5 for pair, count in Counter(seen).items()} == {
        (i, window): True for i in range(3) for window in range(num_windows)
    }
    longest_run = max(len(list(run)) for _, run in groupby(seen, key=lambda pair: pair[0]))
    assert longest_run <= 18  # a block of 8 and its warm-up, twice where turns meet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LengthAdaptiveModel:
    scorers = {layer: Scorer(32, 8, (3,)) for layer in (1, 2)}
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "learnt", tiny_bert(), scorers=scorers)
    return LengthAdaptiveModel.from_pretrained(folder, num_threads=1, max_compiled=2)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[Window]:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    tokenize = WindowTokenizer(file)
    return [w for n in (3, 17, 40) for w in tokenize("who?", "a b c " * n, max_seq_len=128, doc_stride=16)]


def test_kept_tokens_are_those_that_each_call_reports(model: LengthAdaptiveModel, windows: list[Window]) -> None:
    config = LengthConfig((1, 0.7, 0.5), (None, 0.5, 0.5))
    kept = executed_lengths(model, config, windows)
    for window, own in zip(windows, kept.tolist(), strict=True):
        positions = model(**stack([window]), length_config=config).kept_positions
        assert own == [len(window), *((positions[layer] < len(window)).sum() for layer in (1, 2))]


def test_groups_are_brought_to_one_speed(
    model: LengthAdaptiveModel, windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0
    of_first_group = 2 * 2 * 3 * len(windows)  # start and end; full and one other; three passes

    def clock() -> float:
        """Each request takes a second in the first group, and two in the second."""
        nonlocal readings
        readings += 1
        return float(readings if readings <= of_first_group else 2 * readings)

    monkeypatch.setattr(latency, "perf_counter", clock)
    configs = [LengthConfig((1, 0.7, 0.5)), LengthConfig((1, 1, 1), (None, 0.5, None))]
    table = measure_latency(model, configs, windows, repeats=3)
    assert readings == 2 * of_first_group
    assert table.configs == tuple(configs)
    assert table.lengths.tolist() == [len(window) for window in windows]
    assert table.kept.shape == (2, len(windows), 3)
    np.testing.assert_allclose(table.ms, np.full((2, len(windows)), 1500.0))
    for config, kept in zip(configs, table.kept, strict=True):
        np.testing.assert_array_equal(kept, executed_lengths(model, config, windows))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repeats": 0}, "repeats"),
        ({"windows": []}, "0 windows"),
        ({"configs": []}, "0 length"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    model: LengthAdaptiveModel, windows: list[Window], wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        measure_latency(**{"model": model, "configs": [LengthConfig.full(3)], "windows": windows, **wrong})


def test_a_model_that_would_compile_while_timed_is_refused(model: LengthAdaptiveModel, windows: list[Window]) -> None:
    one_graph = LengthAdaptiveModel(model.bundle, max_compiled=1)
    with pytest.raises(InvalidInputError, match="max_compiled=1"):
        measure_latency(one_graph, [LengthConfig.full(3)], windows)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_windows_are_spread_over_all_lengths(windows: list[Window], count: int) -> None:
    chosen = spread_by_length([*windows[::-1]], count)
    assert len(chosen) == min(count, len(windows))
    lengths = [len(window) for window in chosen]
    assert lengths == sorted(lengths)
    assert lengths[0] == min(map(len, windows))
    if count > 1:
        assert lengths[-1] == max(map(len, windows))


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(2, 20))
def test_of_a_long_front_some_are_taken_evenly(length: int, count: int) -> None:
    found = spread(range(length), count)
    assert len(found) == min(length, count)
    assert found[:1] == list(range(length))[:1]
    assert found[-1:] == list(range(length))[-1:]
    assert all(abs(step - (length - 1) / (len(found) - 1)) < 1 for step in np.diff(found))
