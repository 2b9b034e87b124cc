"""`dynamic-tinybert serve`: the real command on real processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from dynamic_tinybert import LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.settings import ServerSettings, environment_variable

from support.http_app import CONTEXT, QUESTION
from support.serve_process import COMMAND, serve_process
from support.tiny import tiny_bundle

REQUEST = {"inputs": {"question": QUESTION, "context": CONTEXT}}
ENDLESS = {"inputs": {"question": QUESTION, "context": CONTEXT * 13_000}}  # seconds of work


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("serve") / "tiny", {"fast": LengthConfig((1.0, 0.5, 0.5))})


def refusal(*arguments: object, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that ends by itself."""
    done = subprocess.run(
        [COMMAND, "serve", *map(str, arguments)],
        env={**os.environ, **variables, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_answers_as_direct_calls_do_and_ends_with_0(bundle: Path) -> None:
    direct = QuestionAnswerer.from_pretrained(bundle, num_threads=1)
    with serve_process(bundle, "--model-name", "other", DYNAMIC_TINYBERT_SERVE_MAX_ITEMS="2") as server:
        with httpx.Client(base_url=server.url) as client:
            assert client.post("/predict", json=REQUEST).json() == direct(QUESTION, CONTEXT)
            fast = client.post("/predict", json={**REQUEST, "parameters": {"length_config": "fast"}}).json()
            assert fast == direct(QUESTION, CONTEXT, length_config="fast")
            info = client.get("/info").json()
            assert (info["model"]["name"], info["limits"]["max_items"]) == ("other", 2)
            assert client.get("/health").json() == {"status": "ready"}
            assert 'worker_restarts_total{cause="crashed"} 0.0' in client.get("/metrics").text
        assert server.stop() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_accepted_request(bundle: Path, number: signal.Signals) -> None:
    """Clients ask over kept connections until they are told to go elsewhere; nobody is cut off."""
    ends: Counter[Any] = Counter()
    answered = threading.Semaphore(0)
    long = {"inputs": {"question": QUESTION, "context": CONTEXT * 200}}
    with serve_process(bundle) as server:

        def ask(i: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while (
                    "connection" not in (response := client.post("/predict", json=long if i % 2 else REQUEST)).headers
                ):
                    assert response.status_code == 200
                    answered.release()
            ends[response.headers["connection"], response.json().get("error_type")] += 1

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            assert answered.acquire(timeout=60)
        code, errors = server.stop(number)
        for thread in threads:
            thread.join()
    assert (code, errors) == (0, "")
    assert ends.total() == 8
    assert ends.keys() <= {("close", None), ("close", "draining")}  # it had begun, or it came too late


def test_a_connection_without_a_request_does_not_keep_the_server(bundle: Path) -> None:
    with serve_process(bundle) as server, socket.create_connection(address(server.url)) as idle:
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/health").status_code == 200
            stalled = socket.create_connection(address(server.url))
            with closing(stalled):
                stalled.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
                start = time.monotonic()
                assert server.stop()[0] == 0
                assert time.monotonic() - start < 10  # and not the time that a body has
        assert idle.recv(1) == b""


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def test_what_is_not_finished_in_time_is_given_up_and_said(bundle: Path) -> None:
    with serve_process(bundle, "--drain-timeout-s", "0.5") as server:
        statuses = []

        def ask() -> None:
            statuses.append(httpx.post(f"{server.url}/predict", json=ENDLESS, timeout=60).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        while "running 1.0" not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        code, errors = server.stop()
        thread.join()
    assert (code, "accepted requests were not finished within 0.5 s" in errors) == (1, True)
    assert statuses == [503]


def test_a_second_signal_ends_it_at_once(bundle: Path) -> None:
    with serve_process(bundle) as server:
        asking = threading.Thread(target=ask_in_vain, args=(server.url,))
        asking.start()
        while "running 1.0" not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{server.url}/health").status_code != 503:
            time.sleep(0.01)
        assert server.stop()[0] == -signal.SIGTERM
        asking.join()


def ask_in_vain(url: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/predict", json=ENDLESS, timeout=60)


def test_connections_are_accepted_while_the_model_is_loaded(bundle: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [COMMAND, "serve", "--bundle", bundle, "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        response = None
        while response is None:
            try:
                response = httpx.get(f"http://127.0.0.1:{port}/health")
            except httpx.TransportError:
                time.sleep(0.01)
        assert (response.status_code, response.json()["error_type"]) == (503, "starting")
        process.terminate()
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_what_it_cannot_do_is_said_in_one_line(bundle: Path, tmp_path: Path) -> None:
    code, output, errors = refusal("--bundle", tmp_path / "none", "--port", 0)
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("dynamic-tinybert: ")
    (tmp_path / "damaged").mkdir()
    for file in bundle.iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:100])
    code, output, errors = refusal("--bundle", tmp_path / "damaged", "--port", 0)
    assert (code, output, errors.count("\n")) == (1, "", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, _, errors = refusal("--bundle", bundle, "--port", taken.getsockname()[1])
        assert (code, errors.count("\n")) == (1, 1)
        assert "Address already in use" in errors


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--port", "65536", "port must be at most 65535, not 65536"),
        ("--port", "x", "'x' is not a valid integer"),
        ("--workers", "0", "workers must be an int of at least 1, not 0"),
        ("--max-queued", "0", "max_queued must be an int of at least 1, not 0"),
        ("--drain-timeout-s", "nan", "drain_timeout_s must be a finite number"),
        ("--request-timeout-s", "0", "request_timeout_s must be more than 0 seconds, not 0.0"),
        ("--log-level", "loud", "'loud' is not one of"),
        ("--host", "", "host must be a text that is not empty"),
    ],
)
def test_wrong_options_are_usage_errors_also_in_the_environment(option: str, value: str, reason: str) -> None:
    for code, _, errors in (
        refusal(f"{option}={value}"),
        *([refusal(**{environment_variable(option[2:].replace("-", "_")): value})] if value else []),
    ):
        assert (code, reason in errors) == (2, True), errors


def test_every_setting_is_an_option_with_a_variable() -> None:
    code, output, _ = refusal("--help")
    assert code == 0
    for setting in fields(ServerSettings):
        assert f"--{setting.name.replace('_', '-')}" in output
        assert f"DYNAMIC_TINYBERT_SERVE_{setting.name.upper()}" in output


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "80"), ("port", -1), ("host", 3), ("access_log", 1), ("log_level", "loud"), ("keep_alive_s", None)],
)
def test_settings_have_types(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=name):
        ServerSettings(**{name: value})


def test_without_the_extra_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['starlette'] = None; sys.argv[1:] = ['serve']; "
    program += "from dynamic_tinybert.runtime.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'dynamic-tinybert[serving]'" in done.stderr


def test_the_command_line_does_not_load_the_extra() -> None:
    program = "import sys; import dynamic_tinybert.serving.commands.serve; "
    program += "print({'starlette', 'uvicorn', 'prometheus_client', 'openvino'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
