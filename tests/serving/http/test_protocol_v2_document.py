"""The examples of docs/open-inference-protocol.md run as they stand, on the embedded bundle."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import httpx
import pytest

from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.serving.http.errors import ERROR_TYPE_BY_STATUS, STATUS_BY_ERROR
from dynamic_tinybert.serving.http.protocol_v2.models import MODELS
from dynamic_tinybert.serving.http.protocol_v2.requests import request_parameters
from dynamic_tinybert.serving.settings import ServerSettings

from support.live_server import LiveServer, live_server

TEXT = (Path(__file__).parents[3] / "docs" / "open-inference-protocol.md").read_text(encoding="utf-8")
PYTHON, BASH, JSON = (re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) for kind in ("python", "bash", "json"))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(default_bundle()) as server:
        assert server.backend.facts is not None
        server.backend.facts = dataclasses.replace(server.backend.facts, name=ServerSettings().model_name)
        yield server


def on(server: LiveServer, example: str) -> str:
    assert "localhost:8000" in example
    return example.replace("localhost:8000", f"{server.host}:{server.port}")


@pytest.mark.parametrize("example", PYTHON, ids=["texts", "tokens"])
def test_python(server: LiveServer, example: str) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(on(server, example), "example", "exec"), {})
    (expected,) = re.findall(r"\)  # (\[.*\]|\d+)", example)
    assert "".join(printed.getvalue().split()).startswith(expected.replace(" ", ""))


def test_curl(server: LiveServer) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (example,), (response,) = BASH, JSON
    done = subprocess.run(["bash", "-euc", on(server, example)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(response)


def test_paths(server: LiveServer) -> None:
    paths = re.findall(r"`GET (/v2\S*)`", TEXT)
    assert len(paths) == 5
    for path in paths:
        assert httpx.get(server.url + path.replace("NAME", "dynamic-tinybert-tokens")).status_code == 200


def test_tensors_and_parameters() -> None:
    """The tables name all there are."""
    tables = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", TEXT, re.MULTILINE)
    named = {name: text for names, text in tables for name in re.findall(r"`(\w+)`", names)}
    for model in MODELS["answers"]:
        for tensor in (*model.inputs, *model.outputs):
            assert named[tensor.name] in (tensor.datatype, "both")  # length_config is a parameter, too
        assert set(request_parameters(model, ServerSettings())) <= set(named)


def test_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", TEXT, re.MULTILINE)
    documented = {(int(status), kind) for status, kinds in rows for kind in re.findall(r"`(\w+)`", kinds)}
    all_of_them = {*STATUS_BY_ERROR.values(), *ERROR_TYPE_BY_STATUS.items()}
    assert documented == all_of_them - {(405, "method_not_allowed"), (500, "internal")}
