"""Answerers in processes that were forked from one that had used them."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.gate import Gate
from dynamic_tinybert.runtime.encoder.joined_graph import JoinedGraphRequests
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.manifests import rewrite_manifest
from support.tiny import tiny_bundle

QUESTION, CONTEXT = "what was in the box ?", "the fox was in the box and the cat was in the hat . " * 20
SECONDS = 60
"""What hangs ends then."""

fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module", params=["openvino", "joined"])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A bundle whose graphs OpenVINO runs, and one whose graphs are one node, which runs without its CPU plugin."""
    folder = tmp_path_factory.mktemp("bundle")
    if request.param == "openvino":
        return tiny_bundle(folder, {"half": LengthConfig((1, 0.7, 0.3))})
    if not extension_library.worth_fusing():
        pytest.skip("graphs are not fused on this CPU")
    shutil.copytree(default_bundle(), folder, dirs_exist_ok=True)

    def rename(manifest: dict[str, Any]) -> None:
        manifest["length_configs"]["half"] = manifest["length_configs"].pop("fast")

    rewrite_manifest(folder, rename)
    return folder


def in_child(check: Callable[[], object]) -> int:
    """Exit code of a forked process that runs `check`; negative for a signal, which ends it if it hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        try:
            check()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


shared: list[QuestionAnswerer] = []


def ask_shared(name: str) -> object:
    return shared[0](QUESTION, CONTEXT, length_config=name)


@pytest.mark.parametrize("elastic", [False, True])
def test_a_pool_of_forked_processes_answers_as_its_parent(bundle: Path, elastic: bool) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle, elastic=elastic)
    names = ["full", "half"] * 4
    shared[:] = [answerer]
    expected = [ask_shared(name) for name in names]
    with fork.Pool(2) as pool:
        assert pool.map_async(ask_shared, names, chunksize=1).get(SECONDS) == expected
    assert [ask_shared(name) for name in names] == expected


def test_the_child_of_a_child_answers(bundle: Path) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    expected = answerer(QUESTION, CONTEXT)

    def check() -> None:
        assert answerer(QUESTION, CONTEXT) == expected

    def check_and_fork() -> None:
        check()
        assert in_child(check) == 0

    assert in_child(lambda: in_child(check)) == 0
    assert in_child(check_and_fork) == 0
    check()


def test_what_calibration_compiles_survives_a_fork(bundle: Path) -> None:
    pytest.importorskip("torch", reason="calibration needs it")
    from dynamic_tinybert.calibration.significance.states import StateReader

    opened = open_bundle(bundle)
    reader = StateReader(opened, [1])
    windows = WindowTokenizer(opened.tokenizer_json)(QUESTION, CONTEXT, max_seq_len=128, doc_stride=64)[:2]
    expected = reader(windows).by_layer[1]
    assert in_child(lambda: np.testing.assert_array_equal(reader(windows).by_layer[1], expected)) == 0


def test_requests_that_run_while_others_fork_are_answered(bundle: Path) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    expected = {name: answerer(QUESTION, CONTEXT, length_config=name) for name in ("full", "half")}
    over = threading.Event()

    def call(name: str) -> int:
        count = 0
        while not over.is_set():
            assert answerer(QUESTION, CONTEXT, length_config=name) == expected[name]
            count += 1
        return count

    def check() -> None:
        with ThreadPoolExecutor(2) as threads:  # and in the child from threads of its own
            found = list(threads.map(lambda name: answerer(QUESTION, CONTEXT, length_config=name), expected))
        assert found == list(expected.values())

    with ThreadPoolExecutor(6) as threads:
        callers = [threads.submit(call, name) for name in [*expected] * 2]
        forks = [threads.submit(lambda: [in_child(check) for _ in range(3)]) for _ in range(2)]
        codes = [code for done in forks for code in done.result(2 * SECONDS)]
        over.set()
        assert all(caller.result(SECONDS) > 0 for caller in callers)
    assert codes == [0] * 6


def test_threads_of_dropped_graphs_are_missed_by_no_child(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, max_compiled=1)
    expected = model([[1, 2, 3]], length_config="full").start_logits
    model([[1, 2, 3]], length_config="half")  # OpenVINO keeps the executor of the graph that goes, for the next
    assert len(model._graphs) == 1

    def check() -> None:
        np.testing.assert_array_equal(model([[1, 2, 3]], length_config="full").start_logits, expected)

    assert in_child(check) == 0


@pytest.mark.parametrize("ending", ["", "models.clear()", "import gc; models.clear(); gc.collect(); os.fork()"])
def test_a_child_ends_as_any_process(bundle: Path, ending: str) -> None:
    script = f"""
import os, signal
from dynamic_tinybert.runtime import LengthAdaptiveModel
models = [LengthAdaptiveModel.from_pretrained({str(bundle)!r}, elastic=elastic) for elastic in (False, True)]
for model in models:
    model([[1, 2, 3]])
pid = os.fork()
signal.alarm({SECONDS})
if pid:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
models[1]([[1, 2, 3]])
{ending}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_forked_survive_signals(bundle: Path) -> None:
    script = f"""
import os, signal, threading
from dynamic_tinybert.runtime import LengthAdaptiveModel
model = LengthAdaptiveModel.from_pretrained({str(bundle)!r})
model([[1, 2, 3]])
signal.signal(signal.SIGUSR1, lambda number, frame: None)

def fork_and_signal():
    if os.fork() == 0:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        model([[1, 2, 3]])
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        os._exit(0)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    assert os.wait()[1] == 0

fork_and_signal()
thread = threading.Thread(target=fork_and_signal)
thread.start()
thread.join()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: OpenVINO starts no second thread")
def test_a_child_has_threads_of_its_own(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=2)
    batch = np.full((64, 128), 7)

    def threads_at_work() -> int:
        """How many threads but this one have computed for at least 20 ms."""
        tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != threading.get_native_id()]
        return sum(int((task / "schedstat").read_text().split()[0]) > 20_000_000 for task in tasks)

    def check() -> None:
        end = monotonic() + SECONDS / 2
        while threads_at_work() < others:
            assert monotonic() < end, "one thread computes everything"
            model(batch)

    def check_and_fork() -> None:
        check()
        assert in_child(check) == 0

    model(batch)
    compiled = model._graphs.get(model.resolve(None), pytest.fail)._current()
    others = 1 if isinstance(compiled, JoinedGraphRequests) else 2  # for OpenVINO, this thread only waits
    for _ in range(2):
        assert in_child(check_and_fork) == 0


def test_a_fork_inside_a_request_waits_for_the_other_requests_only() -> None:
    gate = Gate()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with gate, gate:
            entered.set()
            leave.wait(SECONDS)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(SECONDS)
    with gate:
        closer = threading.Timer(0.1, leave.set)
        closer.start()
        gate.close()
        assert leave.is_set()
        waiting = threading.Thread(target=hold)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        gate.open()
        waiting.join(SECONDS)
        assert not waiting.is_alive()
    other.join()
    gate.close()  # nothing is held any more
    gate.open()


INTERRUPTED = """
import gc, os, signal, sys, threading, time
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.encoder import forking
from dynamic_tinybert.runtime.encoder.gate import gate

def end(number, frame):
    raise SystemExit(3)

signal.signal(signal.SIGTERM, end)
before = signal.getsignal(signal.SIGINT)
model = LengthAdaptiveModel.from_pretrained(sys.argv[1])
model([[1, 2, 3]])
parent, number, when = os.getpid(), getattr(signal, sys.argv[2]), sys.argv[3]
over, held, sent = threading.Event(), threading.Event(), []

def ask():
    while not over.is_set():
        model([[1, 2, 3]])

def hold():
    with gate:
        held.set()
        while gate._closer is None:
            time.sleep(0.001)
        for _ in range(3):
            os.kill(parent, number)
            time.sleep(0.05)

def interrupted(step):
    def taken():
        if os.getpid() == parent and not sent:
            sent.append(True)
            os.kill(parent, number)
        step()
    return taken

if when == "wait":
    threading.Thread(target=hold).start()
    held.wait()
else:
    setattr(forking, when, interrupted(getattr(forking, when)))
threads = [threading.Thread(target=ask) for _ in range(2)]
for thread in threads:
    thread.start()
try:
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        model([[1, 2, 3]])
        os._exit(7 if gc.isenabled() else 1)
    time.sleep(60)
except BaseException as error:
    print(repr(error))
assert signal.getsignal(signal.SIGINT) is before
over.set()  # else they take turns with the one request, and this thread may wait for long
model([[1, 2, 3]])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), gc.isenabled())
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize(
    ("number", "when", "raised"),
    [
        ("SIGINT", "wait", "KeyboardInterrupt()"),
        ("SIGTERM", "wait", "SystemExit(3)"),
        ("SIGINT", "_wait_until_asleep", "KeyboardInterrupt()"),
        ("SIGINT", "_collect_again", "KeyboardInterrupt()"),
    ],
)
def test_a_signal_while_a_process_forks_is_heard_afterwards(bundle: Path, number: str, when: str, raised: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(bundle), number, when],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{raised}\n7 True\n", "")


def test_a_signal_that_is_not_heard_is_sent_again(bundle: Path) -> None:
    """One that comes just before a system call begins does not end the call."""
    script = f"""
import os, signal, time
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.encoder import forking
model = LengthAdaptiveModel.from_pretrained({str(bundle)!r})
model([[1, 2, 3]])
kill, lost, step = signal.pthread_kill, [], forking._collect_again

def lose_the_first(thread, number):
    lost.append(number) if not lost else kill(thread, number)

def interrupted():
    forking._collect_again = step
    signal.pthread_kill = lose_the_first
    step()
    os.kill(os.getpid(), signal.SIGINT)

parent, forking._collect_again = os.getpid(), interrupted
begun = time.monotonic()
try:
    if os.fork() == 0:
        os._exit(0)
    time.sleep({SECONDS})
except KeyboardInterrupt:
    print("heard", lost == [signal.SIGINT], time.monotonic() - begun < {SECONDS / 2})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard True True\n", "")


def test_a_child_does_not_wait_for_requests_of_threads_that_are_gone() -> None:
    gate = Gate()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with gate:
            entered.set()
            leave.wait(SECONDS)

    def check() -> None:
        gate.open_in_child()
        gate.close()
        gate.open()

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(SECONDS)
    assert in_child(check) == 0
    leave.set()
    other.join()


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[str]:
    """Address of gunicorn's workers, whose master asked before it forked them."""
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(f"""
import json
from dynamic_tinybert.runtime import QuestionAnswerer
answerer = QuestionAnswerer.from_pretrained({str(bundle)!r})
answerer({QUESTION!r}, {CONTEXT!r})

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answerer({QUESTION!r}, {CONTEXT!r})).encode()]
""")
    options = ["--preload", "--workers", "2", "--bind", "127.0.0.1:0", "--timeout", str(SECONDS), "service:application"]
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as master:
        assert master.stderr is not None
        lines = iter(master.stderr.readline, "")
        found = (re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", line) for line in lines)
        yield next(match[1] for match in found if match)
        master.terminate()
        rest = master.stderr.read()
        assert master.wait(SECONDS) == 0
        assert "Error" not in rest


def test_gunicorn_answers_with_a_preloaded_answerer(bundle: Path, server: str) -> None:
    expected = QuestionAnswerer.from_pretrained(bundle)(QUESTION, CONTEXT)
    for _ in range(4):
        with urllib.request.urlopen(server, timeout=SECONDS) as response:
            assert response.read().decode() == json.dumps(expected)
