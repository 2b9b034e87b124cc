"""Measure how long requests take on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from dynamic_tinybert.runtime.batches import TokenSequence, kept_by_layer, stack
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .latency_model import Lengths, Milliseconds

Item = TypeVar("Item")
Window = TypeVar("Window", bound=TokenSequence)
Request = Callable[[int], object]
"""Runs the model on the window of an index."""

_BLOCK = 8  # requests of one kind in a row


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


def measure_latency(
    model: LengthAdaptiveModel,
    configs: Sequence[LengthConfig],
    windows: Sequence[TokenSequence],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> LatencyTable:
    """Time the model's call alone, one window at a time, for each configuration.

    Everything runs once before anything is timed. The configurations take turns in random order, so that other load on
    the machine affects all of them alike. If the model cannot keep all of them compiled at once, they are measured in
    groups; `full` is in each group, and the times of a group are scaled so that `full` takes the same in all groups.

    Args:
        model: The model.
        configs: At least one.
        windows: Real inputs, at least one.
        repeats: How often each window is timed at each configuration.
        seed: Seed for the order.

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
        executed_lengths(model, full, windows)  # also compiles the graph and prepares the kernels of each length
        kept += [executed_lengths(model, config, windows) for config in group]
        times.append(interleaved_ms([requests(c) for c in (full, *group)], len(windows), repeats=repeats, seed=seed))
    of_full = np.array([group[0].mean() for group in times])
    scaled = [group[1:] * (of_full.mean() / own) for group, own in zip(times, of_full, strict=True)]
    lengths = np.array([len(window) for window in windows])
    return LatencyTable(tuple(configs), lengths, np.stack(kept), np.concatenate(scaled))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of `items`, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[place] for place in places.round().astype(int)]


def spread_by_length(windows: Sequence[Window], count: int) -> list[Window]:
    """At most `count` windows, evenly spaced in order of length, the shortest and the longest among them."""
    return spread(sorted(windows, key=len), count)


def executed_lengths(model: LengthAdaptiveModel, config: LengthConfig, windows: Sequence[TokenSequence]) -> Lengths:
    """Number of tokens that each layer passes on, int64 [windows, num_layers], from running each window alone."""
    kept = []
    for window in windows:
        positions = model(**stack([window]), length_config=config).kept_positions
        counts = {layer: int((own < len(window)).sum()) for layer, own in positions.items()}
        kept.append(kept_by_layer(counts, len(window), len(config.keep_ratios)))
    return np.array(kept)


def requests_of(model: LengthAdaptiveModel, windows: Sequence[TokenSequence]) -> Callable[[LengthConfig], Request]:
    """A function that returns the `Request` of a configuration on these windows, for `interleaved_ms`."""
    inputs = [stack([window]) for window in windows]
    return lambda config: lambda window: model(**inputs[window], length_config=config)


def interleaved_ms(requests: Sequence[Request], num_windows: int, *, repeats: int, seed: int = 0) -> Milliseconds:
    """Median time of each request on each window, float64 [requests, windows] in milliseconds.

    The requests take turns, each with a short block of windows: as in production, a request finds its own weights in
    the caches, and lengths come in random order.

    Args:
        requests: What to time; every request must have run on every window before.
        num_windows: Number of windows.
        repeats: Passes over the windows.
        seed: Seed for the order of the windows in each pass, and of the requests in each turn.
    """
    generator = np.random.default_rng(seed)
    seconds = np.empty((repeats, len(requests), num_windows))
    for one_pass in seconds:
        order = generator.permutation(num_windows)
        for block in np.split(order, range(_BLOCK, num_windows, _BLOCK)):
            for i in generator.permutation(len(requests)):
                requests[i](block[-1])  # brings its weights back into the caches
                for window in block:
                    start = perf_counter()
                    requests[i](window)
                    one_pass[i, window] = perf_counter() - start
    return 1e3 * np.median(seconds, axis=0)
