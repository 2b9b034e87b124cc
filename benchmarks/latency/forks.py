"""Do children of fork() answer? A parent whose threads keep sending requests forks again and again.

    python -m benchmarks.latency.forks [--bundle BUNDLE] [--forks 200] [--callers 4] [--elastic] [--threads N]

Each child sends requests, compares the answers with those that the parent got before it forked, sends requests from two
threads at once, and exits as Python does, with all destructors. The output has the times of the children, and of a
process that loaded the model itself.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from time import perf_counter, process_time

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu

from benchmarks.common import argument_parser

LENGTH = 192
PATIENCE = 60
"""Seconds after which a child counts as hanging."""


class Asker:
    def __init__(self, model: LengthAdaptiveModel) -> None:
        words, length = model.bundle.vocab_size, min(LENGTH, model.max_length)
        self.model = model
        self.inputs = {
            "input_ids": np.random.default_rng(0).integers(words // 2, words, (1, length)),
            "token_type_ids": (np.arange(length) >= 8).astype(np.int64)[None],
        }
        self.names = list(model.length_configs)

    def __call__(self, name: str | None = None) -> np.ndarray:
        logits: np.ndarray = self.model(**self.inputs, length_config=name).start_logits
        return logits


def report(ask: Asker) -> dict[str, float]:
    """Milliseconds of the first request, median of the later ones, and the number of cores that these keep busy."""
    start = perf_counter()
    ask()
    first = perf_counter() - start
    times, cpu_start, start = [], process_time(), perf_counter()
    for _ in range(10):
        before = perf_counter()
        ask()
        times.append(perf_counter() - before)
    cores = (process_time() - cpu_start) / (perf_counter() - start)
    return {"first_ms": 1000 * first, "median_ms": 1000 * float(np.median(times)), "cores": cores}


def in_child(ask: Asker, expected: dict[str, np.ndarray], write_end: int) -> None:
    """Run requests, and exit with 0 if all answers are right."""
    measured = report(ask)
    wrong: list[str] = []

    def check() -> None:
        for name in ask.names:
            if not np.array_equal(ask(name), expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=check) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        sys.exit(f"other answers than the parent's: {wrong}")
    os.write(write_end, json.dumps(measured).encode())


def forked(ask: Asker, expected: dict[str, np.ndarray]) -> tuple[int, dict[str, float]]:
    """Fork; returns the child's exit code, negative for a signal, and what it measured."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        in_child(ask, expected, write_end)
        sys.exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), json.loads(text) if text else {}


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--bundle")
    parser.add_argument("--forks", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4, help="threads of the parent that send requests all the time")
    parser.add_argument("--elastic", action="store_true")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    ask = Asker(
        LengthAdaptiveModel.from_pretrained(arguments.bundle, num_threads=arguments.threads, elastic=arguments.elastic)
    )
    expected = {name: ask(name) for name in ask.names}
    alone = report(ask)
    over = threading.Event()
    failures: list[str] = []
    answers = [0] * arguments.callers

    def call(k: int) -> None:
        name = ask.names[k % len(ask.names)]
        while not over.is_set():
            if not np.array_equal(ask(name), expected[name]):
                failures.append(f"caller {k} got another answer")
            answers[k] += 1

    callers = [threading.Thread(target=call, args=(k,)) for k in range(arguments.callers)]
    for caller in callers:
        caller.start()
    codes: list[int] = []
    children: list[dict[str, float]] = []
    for number in tqdm(range(arguments.forks)):
        if number % 10 == 0:  # a graph that the parent has dropped leaves threads behind
            LengthAdaptiveModel(ask.model.bundle)(**ask.inputs)
            gc.collect()
        code, measured = forked(ask, expected)
        codes.append(code)
        children += [measured] if measured else []
        if code:
            print(f"fork {number}: exit code {code}", flush=True)
    over.set()
    for caller in callers:
        caller.join(PATIENCE)
        if caller.is_alive():
            failures.append(f"{caller.name} hangs")
    quiet = [forked(ask, expected) for _ in range(10)]
    codes += [code for code, _ in quiet]
    tokens = ask.inputs["input_ids"].size
    print(f"{cpu.name()}, {len(os.sched_getaffinity(0))} CPUs, {tokens} tokens, {arguments.callers} callers")
    print(
        f"forks {len(codes)}, hangs {codes.count(-signal.SIGALRM)}, other failures "
        f"{sum(code not in (0, -signal.SIGALRM) for code in codes)}, parent's answers {sum(answers)}, {failures}"
    )
    print(f"{'':24} first ms  median ms  cores busy")
    rows = {"parent, before": [alone], "children, under load": children, "children, quiet": [m for _, m in quiet if m]}
    for name, measurements in rows.items():
        first, median, cores = (np.median([m[key] for m in measurements]) for key in ("first_ms", "median_ms", "cores"))
        print(f"{name:24} {first:8.1f} {median:10.2f} {cores:11.2f}")
    return bool(any(codes) or failures)


if __name__ == "__main__":
    sys.exit(main())
