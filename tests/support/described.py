"""Whether a server does what its description says, by the judgement of schemathesis."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONFIGURATION = """
[checks]
# What fits the schema, but not this model, or is too long in all, is refused.
positive_data_acceptance.expected-statuses = ["2xx", "413", "422", "504"]
# A request may give itself a microsecond.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
# Too long a text or list is refused with 413.
negative_data_rejection.expected-statuses = ["400", "405", "413", "415", "422"]
"""


def assert_described(url: str, folder: Path, *, examples: int) -> None:
    """Fail if schemathesis finds a failure.

    Args:
        url: Address of the server, which should wait only a short time for bodies.
        folder: For its files.
        examples: Number of requests to each operation in each of its phases.
    """
    configuration, report = folder / "schemathesis.toml", folder / "report.json"
    configuration.write_text(CONFIGURATION)
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={configuration}", "run"]
    options = ["--checks=all", f"--max-examples={examples}", "--seed=1", "--no-color", "--continue-on-failure"]
    options.append("--exclude-path-regex=/versions/")  # they lead to the same code as the paths without a version
    done = subprocess.run(
        [*command, f"{url}/openapi.json", *options, "--report=json", f"--report-json-path={report}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())
