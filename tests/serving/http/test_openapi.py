"""The description of the server is what it does, by the judgement of schemathesis."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dynamic_tinybert import LengthConfig

from support.live_server import live_server
from support.tiny import tiny_bundle

CONFIGURATION = """
[checks]
# What fits the schema, but not this model, or is too long in all, is refused.
positive_data_acceptance.expected-statuses = ["2xx", "413", "422", "504"]
# A request may give itself a microsecond.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
# Too long a text or list is refused with 413.
negative_data_rejection.expected-statuses = ["400", "405", "413", "415", "422"]
"""


def test_it_names_every_route(tmp_path: Path) -> None:
    with live_server(tiny_bundle(tmp_path / "bundle"), model_name="tiny") as server:
        paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
        for path, item in paths.items():
            for method in item:
                assert httpx.request(method, f"{server.url}{path}").status_code not in (404, 405)
    assert {"/predict", "/health", "/info", "/metrics"} <= set(paths)


@pytest.mark.slow
def test_schemathesis_finds_no_failure(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", {"fast": LengthConfig((1.0, 0.5, 0.5))})
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    with live_server(bundle, model_name="tiny", receive_timeout_s=2, max_characters=2000) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={configuration}", "run"]
        options = ["--checks=all", "--max-examples=200", "--seed=1", "--no-color", "--continue-on-failure"]
        options.append("--exclude-path-regex=/versions/")  # they lead to the same code as the paths without a version
        report = tmp_path / "report.json"
        done = subprocess.run(
            [*command, f"{server.url}/openapi.json", *options, "--report=json", f"--report-json-path={report}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())
