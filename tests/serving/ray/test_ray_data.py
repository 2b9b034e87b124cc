"""Ray Data on a real cluster of two nodes, one of which is killed in the middle."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert import LengthConfig, QuestionAnswerer
from dynamic_tinybert.serving.ray import BatchAnswerer

from support.ray_cluster import add_node, ray_cluster
from support.tiny import tiny_bundle

pytest.importorskip("ray.data", reason="Ray is not installed")
import ray
import ray.data

pytestmark = pytest.mark.slow

ROWS, BATCH = 400, 10
WORDS = ["the", "fox", "was", "in", "the", "box", "and", "the", "cat", "was", "in", "the", "hat", "of", "what"]
PATIENCE_S = 120


class WatchedAnswerer(BatchAnswerer):
    """Notes each batch in a file; on the node that is to die, the third batch never ends."""

    def __init__(self, log: str, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of BatchAnswerer
        super().__init__(*arguments, **options)
        self._folder = Path(log)
        self._node = ray.get_runtime_context().get_node_id()
        self._done = 0
        self._note("actor", threads=self._answerer.model.execution["INFERENCE_NUM_THREADS"])

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - a pyarrow.Table
        ids = batch.column("id").to_pylist()
        self._note("begun", ids=ids)
        while self._done == 2 and (self._folder / f"doomed-{self._node}").exists():
            self._note("held", ids=ids)
            time.sleep(1)
        answered = super().__call__(batch)
        self._done += 1
        return answered

    def _note(self, event: str, **more: Any) -> None:  # noqa: ANN401 - what JSON can hold
        line = json.dumps({"event": event, "node": self._node, **more})
        file = os.open(self._folder / "log.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(file, f"{line}\n".encode())
        os.close(file)


def notes(folder: Path, event: str, node: str) -> list[dict[str, Any]]:
    file = folder / "log.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [note for note in found if (note["event"], note["node"]) == (event, node)]


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), {"half": LengthConfig((1, 0.7, 0.4))})


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Contexts of many lengths, some longer than a window; every 40th row has no question."""
    return [
        {
            "id": i,
            "question": "" if i % 40 == 7 else f"what was in {WORDS[i % 15]}?",
            "context": " ".join((WORDS * 20)[: 1 + 37 * i % 200]),
        }
        for i in range(ROWS)
    ]


@pytest.fixture(scope="module")
def expected(bundle: Path, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Direct answers by id."""
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=1)
    good = [row for row in rows if row["question"]]
    answers = answerer.answer_batch(good, length_config="half")
    return {row["id"]: dict(own[0]) for row, own in zip(good, answers, strict=True)}


def test_no_row_is_lost_or_doubled_when_a_node_dies(
    tmp_path: Path, bundle: Path, rows: list[dict[str, Any]], expected: dict[int, dict[str, Any]]
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the file of a test
    with ray_cluster(num_cpus=1) as cluster, ThreadPoolExecutor(1) as pool:
        doomed = add_node(cluster, num_cpus=1)  # one actor on each node, as neither has room for two
        (tmp_path / f"doomed-{doomed.node_id}").touch()
        dataset = ray.data.from_items(rows, override_num_blocks=ROWS // BATCH).map_batches(
            WatchedAnswerer,
            fn_constructor_args=(str(tmp_path), str(bundle)),
            fn_constructor_kwargs={"length_config": "half"},
            batch_format="pyarrow",
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=1,
        )
        result = pool.submit(dataset.take_all)
        head = ray.get_runtime_context().get_node_id()
        wait_for(lambda: notes(tmp_path, "held", doomed.node_id) and notes(tmp_path, "begun", head))
        cluster.remove_node(doomed, allow_graceful=False)
        add_node(cluster, num_cpus=1)  # the pool's second actor starts again here
        answered = result.result(PATIENCE_S)
    (actor,) = notes(tmp_path, "actor", doomed.node_id)
    assert actor["threads"] == "1"
    assert Counter(row["id"] for row in answered) == Counter(range(ROWS))
    lost = {number for note in notes(tmp_path, "begun", doomed.node_id) for number in note["ids"]}
    assert len(lost) >= 3 * BATCH
    for row in answered:
        assert {name: row[name] for name in rows[0]} == rows[row["id"]]
        answer = expected.get(row["id"])
        assert (row["error"] is None) == (answer is not None)
        if answer is not None:
            assert row["score"] == pytest.approx(answer["score"], rel=1e-5)
            assert all(row[name] == answer[name] for name in ("answer", "start", "end"))
