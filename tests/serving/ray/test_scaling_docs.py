"""The snippets of docs/scaling.md run as they stand, with a temporary folder in the place of /data."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed")
import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
from ray import serve
from ray.serve.schema import ServeDeploySchema

from dynamic_tinybert.serving.ray import build_app

from support.ray_cluster import ray_cluster
from support.tiny import tiny_bundle

pytestmark = pytest.mark.slow

DOC = Path(__file__).parents[3] / "docs" / "scaling.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)\n```", DOC.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_bundle(folder / "bundle")
    (folder / "questions").mkdir()
    pq.write_table(pa.table({"question": ["Where?", ""], "context": ["the fox"] * 2}), folder / "questions/0.parquet")
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ray_cluster(num_cpus=2):
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()


def block(language: str, word: str, data: Path) -> str:
    (found,) = (text for own, text in BLOCKS if own == language and word in text)
    return str(found.replace("/data/", f"{data}/"))


def test_all_blocks_are_tested() -> None:
    assert [language for language, _ in BLOCKS] == ["python", "bash", "python", "yaml"]


@pytest.mark.usefixtures("address")
def test_ray_data(data: Path) -> None:
    exec(compile(block("python", "map_batches", data), str(DOC), "exec"), {})
    answers = pq.read_table(data / "answers").to_pylist()
    assert [(row["question"], row["error"] is None) for row in answers] == [("Where?", True), ("", False)]


@pytest.mark.usefixtures("address")
def test_serve_in_python(data: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python", "serve.run", data), str(DOC), "exec"), names)
    assert names["answer"]["answer"] in "The fox was in the box."
    serve.delete("default")


def test_serve_run(data: Path, address: str) -> None:
    command = shlex.split(block("bash", "serve run", data))
    process = subprocess.Popen([str(Path(sys.executable).with_name(command[0])), *command[1:]])
    try:
        body = {"inputs": {"question": "Where?", "context": "The fox was in the box."}}
        end = time.monotonic() + 90
        while (reply := httpx.post(f"{address}/predict", json=body, timeout=90)).status_code in (404, 503):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.2)
        assert reply.status_code == 200
        assert set(reply.json()) == {"answer", "score", "start", "end"}
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.wait(60)


def test_serve_deploy(data: Path) -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(block("yaml", "applications", data)))
    (application,) = schema.applications
    assert application.import_path == f"{build_app.__module__.rpartition('.')[0]}:build_app"
    build_app(application.args)
