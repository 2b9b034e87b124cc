"""Measuring with requests whose times are known, and predicting from the result."""

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.latency_table import BATCHES, LENGTHS, Batch, LatencyTable, measure_latency_table

SINGLES = {(length, 1): 1 + length / 16 for length in LENGTHS}
TABLE = LatencyTable(
    {"full": {**SINGLES, **{(length, size): 0.75 * size * SINGLES[length, 1] for length, size in BATCHES}}}
)


class Machine:
    """Sleeps as long as a model of known speed computes, and records its runs."""

    def __init__(self, scale: float = 1e-6, compiling: float = 0.0) -> None:
        self.runs: list[tuple[str, Batch]] = []
        self.scale, self.compiling = scale, compiling

    def __call__(self, name: str, batch: Batch, turn: int) -> None:
        if all(name != known for known, _ in self.runs):
            time.sleep(self.compiling)
        self.runs.append((name, batch))
        time.sleep(self.scale * batch[0] * batch[1] * (2 if name == "full" else 1))


def test_predictions_at_measured_batches_are_the_measured_times() -> None:
    for batch, ms in TABLE.ms["full"].items():
        assert TABLE.predict("full", [batch]) == pytest.approx(ms)


def test_times_of_batches_add_up() -> None:
    batches = [(384, 8), (384, 8), (384, 3), (64, 1)]
    alone = sum(TABLE.predict("full", [batch]) for batch in batches)
    assert TABLE.predict("full", batches) == pytest.approx(alone)
    assert TABLE.predict("full", []) == 0


def test_between_and_beyond_what_was_measured_times_are_linear() -> None:
    assert TABLE.predict("full", [(384, 2)]) == pytest.approx(25 * (1 + (0.75 * 4 - 1) / 3))
    for length in (40, 96, 320, 512):
        assert TABLE.predict("full", [(length, 1)]) == pytest.approx(1 + length / 16)
    assert TABLE.predict("full", [(8, 1)]) == pytest.approx(3)  # that of the shortest
    assert TABLE.predict("full", [(384, 5)]) == pytest.approx(0.75 * 5 * 25)
    assert TABLE.predict("full", [(384, 16)]) == pytest.approx(0.75 * 16 * 25)


def test_lengths_count_as_the_model_pads_them() -> None:
    assert TABLE.predict("full", [(89, 1)]) == TABLE.predict("full", [(96, 1)]) == pytest.approx(7)


@given(
    st.dictionaries(st.sampled_from(LENGTHS), st.floats(0.01, 100), min_size=1),
    st.floats(0.01, 1000),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_more_never_takes_less(
    ms: dict[int, float], pair: float, lengths: tuple[int, int], sizes: tuple[int, int]
) -> None:
    """However noisy the measurements are: a longer input, or a larger batch, is never predicted to be faster."""
    measured: dict[Batch, float] = {(length, 1): value for length, value in ms.items()}
    table = LatencyTable({"full": measured})
    assert 0 < table.predict("full", [(min(lengths), 1)]) <= table.predict("full", [(max(lengths), 1)])
    largest = max(ms)
    table = LatencyTable({"full": {**measured, (largest, 4): pair}})
    one, other = (table.predict("full", [(lengths[0], size)]) for size in sorted(sizes))
    assert 0 < one <= other


def test_measured_times_are_those_of_the_machine() -> None:
    machine = Machine(scale=2e-5)
    table = measure_latency_table(machine, ["full", "fast"], max_length=512, max_compiled=8, seconds=2)
    assert list(table.ms) == ["full", "fast"]
    assert {(length, 1) for length in LENGTHS} <= table.ms["full"].keys()
    for name, factor in (("full", 2), ("fast", 1)):
        for (length, size), ms in table.ms[name].items():
            assert ms >= 1e3 * 2e-5 * factor * length * size
    assert table.ms["full"][384, 1] > table.ms["fast"][384, 1]


def test_everything_runs_untimed_first_and_configurations_take_turns() -> None:
    machine = Machine()
    measure_latency_table(machine, ["full", "fast"], max_length=512, max_compiled=8)
    compiled, first = machine.runs[:2], machine.runs[2 : 2 + 2 * len(LENGTHS)]
    assert compiled == [("full", (32, 1)), ("fast", (32, 1))]
    assert first == [(name, (length, 1)) for length in (32, 384, 128, 64, 256) for name in ("full", "fast")]
    counts = Counter(machine.runs)
    for length in LENGTHS[1:]:
        assert counts["full", (length, 1)] == counts["fast", (length, 1)] > 3


def test_a_slow_machine_leaves_out_what_it_has_no_time_for() -> None:
    machine = Machine(scale=1e-3)  # 64 and 32 ms for the shortest, 768 and 384 for the longest
    start = time.perf_counter()
    table = measure_latency_table(machine, ["full", "fast"], max_length=512, max_compiled=8, seconds=1.2)
    assert time.perf_counter() - start < 2.5
    assert (32, 1) in table.ms["full"]
    assert (384, 8) not in table.ms["full"]
    assert table.ms["full"].keys() == table.ms["fast"].keys()
    assert table.predict("fast", [(384, 8)]) >= 0.9 * 1e3 * 1e-3 * 384 * 8  # extrapolated


def test_where_compiling_takes_all_the_time_something_is_measured() -> None:
    machine = Machine(compiling=0.3)
    table = measure_latency_table(machine, ["full", "fast"], max_length=512, max_compiled=8, seconds=0.1)
    assert {(32, 1), (64, 1)} <= table.ms["full"].keys() == table.ms["fast"].keys()


def test_no_more_configurations_take_turns_than_stay_compiled() -> None:
    machine = Machine()
    names = [f"c{k}" for k in range(5)]
    table = measure_latency_table(machine, names, max_length=64, max_compiled=2, seconds=0.5)
    assert list(table.ms) == names
    last = {name: max(k for k, run in enumerate(machine.runs) if run[0] == name) for name in names}
    first = {name: min(k for k, run in enumerate(machine.runs) if run[0] == name) for name in names}
    assert max(last["c0"], last["c1"]) < min(first["c2"], first["c3"])
    assert max(last["c2"], last["c3"]) < first["c4"]


@pytest.mark.parametrize(("most", "lengths"), [(20, [20]), (100, [32, 64, 100]), (128, [32, 64, 128]), (512, LENGTHS)])
def test_lengths_go_up_to_what_the_model_reads(most: int, lengths: list[int]) -> None:
    machine = Machine()
    table = measure_latency_table(machine, ["full"], max_length=most, max_compiled=None, seconds=1)
    assert [length for length, size in table.ms["full"] if size == 1] == list(lengths)
    assert max(length for _, (length, _) in machine.runs) <= most
