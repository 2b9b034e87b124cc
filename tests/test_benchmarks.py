"""The benchmark of the ops still fits them: it compares every graph with its reference before it measures."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_op_graphs_give_their_references(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(BENCHMARKS)
    from op_graphs import variants
    from ops import measure

    table = variants(24, 192, (1.0, 0.5))
    samples = measure(table, threads=1, blocks=1, requests=1)
    assert samples.keys() == table.keys()
    assert all((times > 0).all() for times in samples.values())
