"""The description of the server is what it does, by the judgement of schemathesis."""

from pathlib import Path

import httpx
import pytest

from dynamic_tinybert import LengthConfig

from support.described import assert_described
from support.live_server import live_server
from support.tiny import tiny_bundle


def test_it_names_every_route(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    with live_server(bundle, model_name="tiny") as server, httpx.Client(base_url=server.url) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, item in paths.items():
            for method in item:
                assert client.request(method, path).status_code not in (404, 405)
    assert {"/predict", "/health", "/info", "/metrics"} <= set(paths)


@pytest.mark.slow
def test_schemathesis_finds_no_failure(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", {"fast": LengthConfig((1.0, 0.5, 0.5))})
    with live_server(bundle, model_name="tiny", receive_timeout_s=2, max_characters=2000) as server:
        assert_described(server.url, tmp_path, examples=80)
