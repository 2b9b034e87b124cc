"""docs/http.md: its commands run as they stand, and its tables name what there is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.serving.http.errors import ERROR_TYPE_BY_STATUS, STATUS_BY_ERROR
from dynamic_tinybert.serving.http.metrics import PREFIX, Metrics
from dynamic_tinybert.serving.http.parameters import parameter_schemas
from dynamic_tinybert.serving.http.rerank import CohereRerank, Rerank
from dynamic_tinybert.serving.settings import ServerSettings

from support.serve_process import serve_process

TEXT = (Path(__file__).parents[3] / "docs" / "http.md").read_text()
START, *ASK = re.findall(r"```bash\n(.*?)\n```", TEXT, re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.slow  # it loads the embedded bundle, and measures its latency
@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands use curl, which is not installed")
def test_commands_run_as_they_stand() -> None:
    assert START.splitlines()[-1] == "dynamic-tinybert serve --port 8000"
    assert len(ASK) == 2
    outputs = []
    with serve_process(default_bundle()) as server:
        for block in ASK:
            assert ADDRESS in block
            command = block.replace(ADDRESS, server.url)
            done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=True)
            outputs.append(done.stdout)
    answer = json.loads(outputs[0])
    assert answer["answer"] == "Berkeley"
    assert answer.keys() == {"answer", "score", "start", "end", "length_config", "ms", "budget_met"}
    for shown in ('{"status":"ready"}', '"length_configs"', "dynamic_tinybert_requests_total", '"openapi":"3.1.0"'):
        assert shown in outputs[1]


def test_tables_name_all_parameters_errors_and_metrics() -> None:
    parameters, errors, metrics = (section(name) for name in ("Answers", "Errors", "What it says of itself"))
    for name in parameter_schemas(ServerSettings()):
        assert f"`{name}`" in parameters
    for name in OPTIONS:
        assert f"`{name}`" in section("Labels and rankings")
    known = [*STATUS_BY_ERROR.values(), *ERROR_TYPE_BY_STATUS.items()]
    for status, error_type in known:
        row = next(line for line in errors.splitlines() if f"`{error_type}`" in line)
        assert str(status) in row.split("|")[1]
    for family in text_string_to_metric_families(Metrics(NoBackend()).text().decode()):
        if not family.name.endswith("_created"):
            assert f"`{family.name.removeprefix(PREFIX)}" in metrics


OPTIONS = {
    name for schemas in (Rerank.schemas(ServerSettings()), CohereRerank.schemas(ServerSettings())) for name in schemas
}


class NoBackend:
    """A backend that was never started."""

    queued = running = 0
    ready = False
    restarts = {"crashed": 0}  # noqa: RUF012 - nobody changes it


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
