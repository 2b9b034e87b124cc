"""How long requests take on this CPU: measured times of length configurations, and predictions from them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np

from .encoder.compilation import LENGTH_MULTIPLE

Batch = tuple[int, int]
"""Tokens of its inputs, and how many inputs it has."""

Run = Callable[[str, Batch, int], object]
"""Runs a batch at the length configuration of a name; the last argument numbers the runs, to vary the inputs."""

LENGTHS = (32, 64, 128, 256, 384)
"""Tokens of the single inputs that are measured."""

BATCHES = ((384, 8), (384, 4), (128, 8), (128, 4))
"""The batches of several inputs that are measured, the most useful first. Their time is not that of single inputs times
their number: small inputs share the work per request, and where thresholds decide, each layer keeps as many slots as
the row that keeps the most tokens."""

SECONDS = 2.7
"""Time to measure in, compilation of the graphs included: 3 s with the last request and what comes around."""

_LEAST_SECONDS = 1.0  # for the runs, where compiling takes long
_SINGLE_SHARE = 0.45  # of the time; the rest is for batches
_PREPARING_SHARE = 0.4  # of that: for the untimed runs
_MOST_PASSES = 9


@dataclass(frozen=True)
class LatencyTable:
    """Measured times of length configurations, from which those of other batches are interpolated.

    Attributes:
        ms: For each configuration by name, milliseconds by batch; at least one batch of a single input, and for each
            larger batch that of a single input of the same length.
    """

    ms: Mapping[str, Mapping[Batch, float]]
    _predicted: dict[tuple[str, int, int], float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def predict(self, name: str, batches: Iterable[Batch]) -> float:
        """Milliseconds that these batches take, one after the other.

        Args:
            name: The length configuration.
            batches: Tokens of the longest input and number of inputs of each. A time is interpolated linearly over the
                length and then over the number of inputs; beyond the largest length and number the last slope goes on.
        """
        return math.fsum(self._predict(name, length, size) for length, size in batches)

    def _predict(self, name: str, length: int, size: int) -> float:
        batch = (name, -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, size)  # as the model pads it
        if batch not in self._predicted:
            self._predicted[batch] = self._of_batch(self.ms[name], *batch[1:])
        return self._predicted[batch]

    @staticmethod
    def _of_batch(ms: Mapping[Batch, float], length: int, size: int) -> float:
        singles = {tokens: value for (tokens, inputs), value in ms.items() if inputs == 1}
        single = _interpolated(singles, length)
        ratios = {1: 1.0}  # of a batch's time to that of a single input
        for larger in sorted({inputs for _, inputs in ms} - {1}):
            of_size = {t: value / singles[t] for (t, inputs), value in ms.items() if inputs == larger}
            ratios[larger] = float(np.interp(length, sorted(of_size), [of_size[t] for t in sorted(of_size)]))
        if len(ratios) == 1:
            return single * size
        return single * _interpolated(ratios, size)


def measure_latency_table(
    run: Run, names: Sequence[str], *, max_length: int, max_compiled: int | None, seconds: float = SECONDS
) -> LatencyTable:
    """Measure the times of length configurations on this machine.

    All configurations first run every batch once, which compiles their graphs and prepares kernels. Then they take
    turns at each batch in random order, so that other load on the machine affects all alike; before a timed run comes
    an untimed one of the shortest input, which brings the weights back into the caches. Each time is the median over at
    most 9 passes, which run different inputs. Single inputs come first, then batches of several.

    Lengths and batches are left out for which the untimed runs, which have 40 % of the time, have none left, judging by
    the time that each token took so far. Where compiling takes most of the time, the runs still have one second.

    Args:
        run: Runs one batch.
        names: The configurations.
        max_length: Most tokens of an input.
        max_compiled: Number of configurations that stay compiled, by which they are measured in groups; None if there
            is no such limit.
        seconds: Time to measure in.
    """
    lengths = [length for length in LENGTHS if length <= max_length]
    if not lengths or lengths[-1] < max_length < LENGTHS[-1]:
        lengths.append(max_length)
    ms: dict[str, dict[Batch, float]] = {}
    size = max_compiled or len(names)
    groups = [names[first : first + size] for first in range(0, len(names), size)]
    for group in groups:
        start = perf_counter()
        for name in group:
            run(name, (lengths[0], 1), 0)
        now = perf_counter()
        end = max(start + seconds / len(groups), now + _LEAST_SECONDS / len(groups))
        # The ends first, so that as much as possible lies between measured lengths if not all can be measured.
        alone = [(length, 1) for length in dict.fromkeys((lengths[0], lengths[-1], *lengths[2::2], *lengths))]
        singles = _measured(run, group, alone, now + _SINGLE_SHARE * (end - now), shortest=alone[0])
        together = [batch for batch in BATCHES if (batch[0], 1) in singles[group[0]]]
        longest = max(singles[group[0]])
        rate = sum(own[longest] for own in singles.values()) / 1e3 / longest[0]
        several = _measured(run, group, together, end, shortest=alone[0], rate=rate)
        ms |= {name: {**singles[name], **several[name]} for name in group}
    return LatencyTable(ms)


def _measured(
    run: Run, names: Sequence[str], batches: Sequence[Batch], end: float, *, shortest: Batch, rate: float = 0.0
) -> dict[str, dict[Batch, float]]:
    """Median milliseconds by name and batch: of as many of the batches as there is time for until `end`.

    The shortest batch is always measured, if it is one of `batches`. `rate` is the time that a token is expected to
    take, in seconds for all configurations together; it is corrected with each batch.
    """
    start = perf_counter()
    prepared_by = start + _PREPARING_SHARE * (end - start)
    prepared: list[Batch] = []
    for batch in (*batches, *batches):  # what there seemed to be no time for may have some after all
        before = perf_counter()
        tokens = batch[0] * batch[1]
        if batch in prepared or (batch != shortest and before + rate * tokens > prepared_by):
            continue
        for turn, name in enumerate(names):
            if batch != shortest and perf_counter() > end:
                break
            run(name, batch, turn)
        else:
            prepared.append(batch)
        rate = (perf_counter() - before) / tokens
    prepared.sort()
    seconds: dict[str, dict[Batch, list[float]]] = {name: {batch: [] for batch in prepared} for name in names}
    order = random.Random(0)
    for turn in range(_MOST_PASSES):
        for batch in prepared:
            for name in order.sample(names, len(names)):
                if perf_counter() > end and (turn or batch != shortest):
                    break
                run(name, shortest, turn)
                before = perf_counter()
                run(name, batch, turn)
                seconds[name][batch].append(perf_counter() - before)
    measured = [batch for batch in prepared if all(own[batch] for own in seconds.values())]
    return {name: {batch: 1e3 * median(own[batch]) for batch in measured} for name, own in seconds.items()}


def _interpolated(points: Mapping[int, float], at: int) -> float:
    """The value at `at`, linear between points and beyond the last; that of the first before it. It never falls."""
    places = sorted(points)
    values = np.maximum.accumulate([points[place] for place in places])
    if at > places[-1]:
        if len(places) == 1:
            return float(values[0]) * at / places[0]
        slope = (values[-1] - values[-2]) / (places[-1] - places[-2])
        return float(values[-1] + slope * (at - places[-1]))
    return float(np.interp(at, places, values))
