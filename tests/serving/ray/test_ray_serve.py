"""Ray Serve on a real cluster of two nodes: answers, errors, replicas that die with their node or hang."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError

from support.ray_cluster import add_node, ray_cluster

pytest.importorskip("ray.serve", reason="Ray is not installed")
import ray
from ray import serve
from ray._private.state import actors

from dynamic_tinybert.serving.ray import build_app

pytestmark = pytest.mark.slow

TEXT = "the fox was in the box and the cat was in the hat "
CLIENTS = 6
PATIENCE_S = 90


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with room for one replica."""
    with ray_cluster(num_cpus=1) as cluster:
        add_node(cluster, num_cpus=1)
        yield cluster
        serve.shutdown()


@pytest.fixture(scope="module")
def address(cluster: Any, served_bundle: Path) -> str:  # noqa: ANN401 - Ray's tools have no types
    """Where the application listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    settings = {
        "bundle": str(served_bundle),
        "length_config": "half",
        "min_replicas": 2,
        "max_replicas": 2,
        "max_ongoing_requests": "4",  # as a command line gives it
        "health_check_period_s": 1,
        "health_check_timeout_s": 4,
    }
    serve.run(build_app(settings))
    return f"http://127.0.0.1:{port}"


def replicas() -> dict[int, str]:
    """Process and node of each living replica of the model."""
    return {
        actor["Pid"]: actor["Address"]["NodeID"]
        for actor in actors().values()
        if actor["State"] == "ALIVE" and "model" in actor["ActorClassName"]
    }


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


class Load:
    """A few clients, each of which asks again once it has its answer; `done` has what each got."""

    def __init__(self, address: str, expected: dict[str, dict[str, Any]]) -> None:
        self._address, self._questions = address, list(expected)
        self.done: list[tuple[str, int, Any]] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._ask, number) for number in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._address, timeout=PATIENCE_S) as client:
            while not self._stop.is_set() and len(self.done) < 20_000:
                question = self._questions[(len(self.done) + number) % len(self._questions)]
                body = {"inputs": {"question": question, "context": TEXT * 20}}
                reply = client.post("/predict", json=body)
                self.done.append((question, reply.status_code, reply.json()))

    def more(self, count: int) -> None:
        """Wait until so many further requests have been answered."""
        wanted = len(self.done) + count
        wait_for(lambda: len(self.done) >= wanted or any(client.done() for client in self._clients))

    def end(self) -> list[tuple[str, int, Any]]:
        self._stop.set()
        for client in self._clients:
            client.result(PATIENCE_S)
        self._pool.shutdown()
        return self.done


@pytest.fixture(scope="module")
def expected(served: QuestionAnswerer) -> dict[str, dict[str, Any]]:
    """Direct answers to some questions."""
    questions = [f"{word} was in the {place}?" for word in ("who", "what") for place in ("box", "hat", "air")]
    return {
        question: dict(served(question=question, context=TEXT * 20, length_config="half")) for question in questions
    }


def check(done: list[tuple[str, int, Any]], expected: dict[str, dict[str, Any]]) -> None:
    assert {status for _, status, _ in done} == {200}
    for question, _, answer in done:
        own = expected[question]
        assert answer["score"] == pytest.approx(own["score"], rel=1e-4)
        assert {**answer, "score": 0} == {**own, "score": 0}


def test_http_and_handles_give_direct_answers(address: str, expected: dict[str, dict[str, Any]]) -> None:
    question, answer = next(iter(expected.items()))
    reply = httpx.post(f"{address}/predict", json={"inputs": {"question": question, "context": TEXT * 20}})
    check([(question, reply.status_code, reply.json())], expected)
    handle = serve.get_app_handle("default")
    found = handle.answer.remote(question, TEXT * 20).result(timeout_s=PATIENCE_S)
    assert found["answer"] == answer["answer"]
    within = handle.answer.remote(question, TEXT, budget_ms=60_000, timeout=60).result(timeout_s=PATIENCE_S)
    assert within["budget_met"]
    assert len(handle.answer.remote(question, TEXT, top_k=3).result(timeout_s=PATIENCE_S)) == 3
    assert httpx.get(f"{address}/info").json()["model"]["threads"] == 1


def test_errors_are_those_of_the_http_server(address: str) -> None:
    body = {"inputs": {"question": "who?", "context": TEXT}, "parameters": {"length_config": "quick"}}
    reply = httpx.post(f"{address}/predict", json=body)
    assert (reply.status_code, reply.json()["error_type"]) == (422, "length_config")
    assert "Traceback" not in reply.json()["error"]
    handle = serve.get_app_handle("default")
    with pytest.raises(LengthConfigError):
        handle.answer.remote("who?", TEXT, length_config="quick").result(timeout_s=PATIENCE_S)
    with pytest.raises(InvalidInputError):
        handle.answer.remote("", TEXT).result(timeout_s=PATIENCE_S)


def test_no_request_is_lost_when_a_node_dies(
    cluster: Any,  # noqa: ANN401
    address: str,
    expected: dict[str, dict[str, Any]],
) -> None:
    wait_for(lambda: len(set(replicas().values())) == 2)
    head = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in cluster.worker_nodes if node.node_id in replicas().values() and node.node_id != head)
    before = replicas()
    load = Load(address, expected)
    load.more(100)
    cluster.remove_node(node, allow_graceful=False)
    load.more(200)
    add_node(cluster, num_cpus=1)  # as a cluster with autoscaling would
    wait_for(lambda: len(set(replicas().values())) == 2)
    load.more(100)
    check(load.end(), expected)
    assert len(replicas().keys() - before.keys()) == 1


def test_a_hung_replica_is_replaced_and_its_requests_are_answered(
    address: str, expected: dict[str, dict[str, Any]]
) -> None:
    wait_for(lambda: len(replicas()) == 2)
    hung = next(iter(replicas()))
    load = Load(address, expected)
    load.more(50)
    os.kill(hung, signal.SIGSTOP)
    wait_for(lambda: hung not in replicas() and len(replicas()) == 2)
    load.more(100)
    check(load.end(), expected)
