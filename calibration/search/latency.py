"""How long a request takes on this machine: measured, and predicted from the lengths that its layers execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows, stack_windows
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window

Milliseconds = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.int64]
Item = TypeVar("Item")
Request = Callable[[int], object]
"""Runs the window of an index."""

_BLOCK = 8  # requests of one kind in a row
_TERMS = (
    "call",
    "layer_row",  # of layers that keep everything
    "layer_square",
    "selection",
    "selection_row",  # of layers that select: rows that enter
    "selection_square",
    "selection_kept_row",
)


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured times of some length configurations over the same windows.

    Attributes:
        configs: The configurations.
        lengths: Real tokens of each window, int64 [W].
        kept: Tokens that each layer passed on, int64 [configs, W, num_layers].
        ms: Median time of the model's call alone, float64 [configs, W] in milliseconds.
    """

    configs: tuple[LengthConfig, ...]
    lengths: Lengths
    kept: Lengths
    ms: Milliseconds


@dataclass(frozen=True)
class LatencyModel:
    """The time of a request with one window, as a sum over its layers.

    Attributes:
        coefficients: Milliseconds of each term: a call; in layers that keep everything each row and each pair of
            rows; in layers that select the selection itself, each row that enters, each pair of these, and each
            row that goes on. Rows are tokens; of the input, with its padding. None is negative. This is blind to the
            padding of what goes on in graphs that are not fused.
        median_error: What to expect for a configuration that was not measured: median, over the configurations
            that this was fitted on, of the relative error of its mean time when it is left out of the fit.
    """

    coefficients: Mapping[str, float]
    median_error: float

    def __post_init__(self) -> None:
        if self.coefficients.keys() != set(_TERMS):
            raise InvalidInputError(
                f"a latency model has the coefficients {sorted(_TERMS)}, not {sorted(self.coefficients)}; "
                "measure this machine again"
            )

    def predict(self, config: LengthConfig, lengths: npt.ArrayLike, kept: npt.ArrayLike) -> Milliseconds:
        """Time of each window at a configuration, float64 [W] in milliseconds.

        Args:
            config: The configuration, which says what layers select.
            lengths: Real tokens of each window, int [W].
            kept: Tokens that each layer passed on, int [W, num_layers].

        Raises:
            LengthConfigError: `config` has another number of layers than `kept`.
        """
        ms: Milliseconds = _terms(config, lengths, kept) @ [self.coefficients[term] for term in _TERMS]
        return ms

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencyModel:
        """Read what `to_dict` gave.

        Raises:
            InvalidInputError: It comes from a release whose model has other terms.
        """
        return cls(dict(values["coefficients"]), float(values["median_error"]))


def measure_latency(
    model: LengthAdaptiveModel,
    configs: Sequence[LengthConfig],
    windows: Sequence[Window],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> LatencyTable:
    """Time the model's call alone, one window at a time, for each configuration.

    Everything is run once before anything is timed. The configurations take turns in random order, so that what
    else the machine does meets them alike. Those that do not fit into the model's memory at once are measured in
    groups; `full` is in each group, and all times of a group are scaled so that `full` takes the same in all.

    Args:
        model: The model.
        configs: At least one.
        windows: Real inputs, at least one.
        repeats: How often each window is timed at each configuration.
        seed: Of the order.

    Raises:
        InvalidInputError: There is nothing to measure, `repeats` is less than 1, or the model keeps one graph only.
        LengthConfigError: A configuration does not fit the model.
        InferenceError: OpenVINO failed.
    """
    require_int("repeats", repeats, 1)
    if model.max_compiled < 2:
        raise InvalidInputError("a model with max_compiled=1 compiles while it is timed; load it with at least 2")
    if not configs or not windows:
        raise InvalidInputError(f"nothing to measure: {len(configs)} length configurations, {len(windows)} windows")
    requests = requests_of(model, windows)
    full, size = model.resolve("full"), model.max_compiled - 1
    kept, times = [], []
    for group in (configs[first : first + size] for first in range(0, len(configs), size)):
        executed_lengths(model, full, windows)  # also compiles, and prepares the kernels of each length
        kept += [executed_lengths(model, config, windows) for config in group]
        times.append(interleaved_ms([requests(c) for c in (full, *group)], len(windows), repeats=repeats, seed=seed))
    of_full = np.array([group[0].mean() for group in times])
    scaled = [group[1:] * (of_full.mean() / own) for group, own in zip(times, of_full, strict=True)]
    lengths = np.array([len(window) for window in windows])
    return LatencyTable(tuple(configs), lengths, np.stack(kept), np.concatenate(scaled))


def fit_latency_model(table: LatencyTable) -> LatencyModel:
    """Fit a model that predicts other configurations, by least squares of the relative errors.

    Args:
        table: At least two configurations; better a dozen that differ much, from no layer that selects to all, with
            thresholds where the others will have them, over windows `spread_by_length`.

    Raises:
        InvalidInputError: There are fewer than two configurations.
    """
    count = len(table.configs)
    if count < 2:
        raise InvalidInputError(f"a latency model needs at least 2 measured configurations, not {count}")
    terms = np.stack([_terms(c, table.lengths, kept) for c, kept in zip(table.configs, table.kept, strict=True)])
    errors = []
    for i in range(count):
        others = np.arange(count) != i
        predicted = terms[i] @ _solve(terms[others], table.ms[others])
        errors.append(abs(predicted.mean() / table.ms[i].mean() - 1))
    coefficients = _solve(terms, table.ms)
    return LatencyModel(dict(zip(_TERMS, coefficients.tolist(), strict=True)), float(np.median(errors)))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of what is to be measured, evenly from the first to the last, these among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[place] for place in places.round().astype(int)]


def spread_by_length(windows: Sequence[Window], count: int) -> list[Window]:
    """At most `count` windows, evenly through all sorted by length, the shortest and the longest among them."""
    return spread(sorted(windows, key=len), count)


def executed_lengths(model: LengthAdaptiveModel, config: LengthConfig, windows: Sequence[Window]) -> Lengths:
    """Tokens that each layer passes on, int64 [windows, num_layers], from a run of each window alone."""
    (outputs,) = run_windows(model, [windows], length_config=config, batch_size=1)
    num_layers = len(config.keep_ratios)
    return np.array([output.kept_by_layer(len(w), num_layers) for output, w in zip(outputs, windows, strict=True)])


def requests_of(model: LengthAdaptiveModel, windows: Sequence[Window]) -> Callable[[LengthConfig], Request]:
    """A function that gives the requests of a configuration for `interleaved_ms`."""
    inputs = [stack_windows([window]) for window in windows]
    return lambda config: lambda window: model(**inputs[window], length_config=config)


def interleaved_ms(requests: Sequence[Request], num_windows: int, *, repeats: int, seed: int = 0) -> Milliseconds:
    """Median time of each request on each window, float64 [requests, windows] in milliseconds.

    The requests take turns, a short block of windows each: as in service, a request finds its own weights in the
    caches, and its windows come in any order of lengths.

    Args:
        requests: What to time; all must be warmed up.
        num_windows: Windows to run.
        repeats: Passes over the windows.
        seed: Of the order of the windows in each pass, and of the requests in each turn.
    """
    generator = np.random.default_rng(seed)
    seconds = np.empty((repeats, len(requests), num_windows))
    for one_pass in seconds:
        order = generator.permutation(num_windows)
        for block in np.split(order, range(_BLOCK, num_windows, _BLOCK)):
            for i in generator.permutation(len(requests)):
                requests[i](block[-1])  # back into the caches
                for window in block:
                    start = perf_counter()
                    requests[i](window)
                    one_pass[i, window] = perf_counter() - start
    return 1e3 * np.median(seconds, axis=0)


def padded_lengths(lengths: npt.ArrayLike) -> Lengths:
    """What the runtime pads inputs to."""
    return -(-np.asarray(lengths) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _terms(config: LengthConfig, lengths: npt.ArrayLike, kept: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How often each of `_TERMS` occurs in each window, [W, terms]."""
    kept = np.asarray(kept)
    config.check_layers(kept.shape[1])
    rows = padded_lengths(lengths)
    terms = np.zeros((len(rows), len(_TERMS)))
    column = dict(zip(_TERMS, terms.T, strict=True))
    column["call"] += 1
    for layer in range(kept.shape[1]):
        if layer in config.selecting_layers:
            column["selection"] += 1
            column["selection_row"] += rows
            column["selection_square"] += rows**2
            rows = kept[:, layer]
            column["selection_kept_row"] += rows
        else:
            column["layer_row"] += rows
            column["layer_square"] += rows**2
    return terms


def _solve(terms: npt.NDArray[np.float64], ms: Milliseconds) -> npt.NDArray[np.float64]:
    """Non-negative coefficients [terms] that fit `terms` [..., W, terms] to `ms` [..., W]."""
    relative = (terms / ms[..., None]).reshape(-1, terms.shape[-1])
    scale = np.linalg.norm(relative, axis=0)
    scale[scale == 0] = 1  # no configuration has this term
    solution, _ = nnls(relative / scale, np.ones(len(relative)))
    return np.asarray(solution / scale)
