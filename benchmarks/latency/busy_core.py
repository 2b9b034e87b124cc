"""Times of requests while another process takes part of one core, for one or more builds of the extension.

    python -m benchmarks.latency.busy_core [BUNDLE] [--library NAME=FILE.so ...] [--length-configs full] [--pause-ms 2]

Each library (DYNAMIC_TINYBERT_EXTENSION) runs in a process of its own on the first `--threads` CPUs of this process.
Blocks of requests of random tokens take turns: library by library, quiet and disturbed. In a disturbed block another
process, pinned to the last of these CPUs, computes for --busy-ms and then sleeps, so that it takes --share of the CPU.
Workers are stopped while it is not their turn.

With N threads and a share s of one core taken away, the lost computing power alone explains N / (N - s) times the quiet
time.
A FILE.so needs the extension-build.json of its build beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import openvino as ov
from tqdm import tqdm

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.encoder import extension_library

from benchmarks.common import argument_parser


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="by default the embedded one")
    parser.add_argument(
        "--library", action="append", default=[], metavar="NAME=FILE.so", help="default: the installed one"
    )
    parser.add_argument("--length-configs", nargs="+", default=["full", "fast"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.5, help="share of one core that the other process takes")
    parser.add_argument("--busy-ms", type=float, default=2.0, help="milliseconds that it computes at a time")
    parser.add_argument("--pause-ms", type=float, default=0.0, help="between requests, as where they come one by one")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=int, default=40, help="requests per turn")
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[: arguments.threads]
    if len(cpus) < arguments.threads:
        parser.error(f"{arguments.threads} threads need as many CPUs; this process may use {len(cpus)}")
    libraries = dict(named.split("=", 1) for named in arguments.library) or {
        "installed": str(extension_library.extension_path())
    }
    print(
        f"{cpu.name()}, CPUs {cpus}, {arguments.share:.0%} of the last one taken, {arguments.busy_ms:g} ms at a time; "
        f"OpenVINO {ov.__version__}, {extension_library.isa()}; {arguments.rounds} rounds of {arguments.block} requests"
    )
    workers = {name: Worker(path, arguments.bundle, cpus, arguments.pause_ms) for name, path in libraries.items()}
    times = measure(workers, arguments, cpus[-1])
    for worker in workers.values():
        worker.end()
    report(times, next(iter(libraries)), arguments.threads / (arguments.threads - arguments.share))


def measure(
    workers: dict[str, Worker], arguments: argparse.Namespace, busy_cpu: int
) -> dict[tuple[str, str, bool], list[float]]:
    """Median milliseconds of each round by length configuration, library and whether the core was busy."""
    times: defaultdict[tuple[str, str, bool], list[float]] = defaultdict(list)
    turns = [(config, name) for config in arguments.length_configs for name in workers]
    for turn in turns:  # compiles the graphs, and runs all lengths once
        workers[turn[1]].times(turn[0], seed=0, count=arguments.block)
    for i in tqdm(range(arguments.rounds), disable=None):
        for disturbed in (False, True) if i % 2 else (True, False):
            other = occupy(busy_cpu, arguments.share, arguments.busy_ms / 1e3) if disturbed else None
            for config, name in reversed(turns) if i // 2 % 2 else turns:
                taken = workers[name].times(config, seed=i, count=arguments.block)
                times[config, name, disturbed].append(1e3 * float(np.median(taken)))
            if other:
                other.kill()
                other.wait()
    return times


def report(times: dict[tuple[str, str, bool], list[float]], first: str, fair: float) -> None:
    """Print medians over rounds, and medians of the ratios within a round with their quartiles."""
    print(f"| Configuration | Library | quiet, ms | disturbed, ms | disturbed / quiet (fair: {fair:.2f}) ", end="")
    print(f"| quiet / {first} | disturbed / {first} |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for config, name in dict.fromkeys((config, name) for config, name, _ in times):
        quiet, disturbed = (np.array(times[config, name, busy]) for busy in (False, True))
        of_first = [np.array(times[config, first, busy]) for busy in (False, True)]
        ratios = [disturbed / quiet, quiet / of_first[0], disturbed / of_first[1]]
        cells = [f"{np.median(quiet):.2f}", f"{np.median(disturbed):.2f}"]
        for ratio in ratios:
            low, middle, high = np.percentile(ratio, (25, 50, 75))
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {config} | {name} | {' | '.join(cells)} |")


class Worker:
    """A model in a process of its own, which is stopped (SIGSTOP) between its turns."""

    def __init__(self, library: str, bundle: Path | None, cpus: list[int], pause_ms: float) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.latency.busy_core",
            "--worker",
            json.dumps([str(bundle) if bundle else None, cpus, pause_ms / 1e3]),
        ]
        environment = {**os.environ, "DYNAMIC_TINYBERT_EXTENSION": library}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def times(self, config: str, *, seed: int, count: int) -> list[float]:
        """Seconds of each request of a block."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps([config, seed, count]), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the worker {self._process.args!r} ended with status {self._process.wait()}")
        self._process.send_signal(signal.SIGSTOP)
        seconds: list[float] = json.loads(reply)
        return seconds

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def work(bundle: str | None, cpus: list[int], pause: float) -> None:
    """The worker: for each line of its input, run as many requests of random tokens as that line asks for."""
    os.sched_setaffinity(0, cpus)
    model = LengthAdaptiveModel.from_pretrained(*([bundle] if bundle else []), num_threads=len(cpus))
    words = model.bundle.vocab_size
    for line in sys.stdin:
        config, seed, count = json.loads(line)
        generator, seconds = np.random.default_rng(seed), []
        for length in generator.integers(64, min(256, model.max_length), count):
            ids = generator.integers(words // 2, words, (1, length))
            types = (np.arange(length) > 12).astype(np.int64)[None]  # a question of about 12 tokens, then its context
            if pause:
                sleep(pause)
            start = perf_counter()
            model(ids, token_type_ids=types, length_config=config)
            seconds.append(perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def occupy(cpu_number: int, share: float, busy: float) -> subprocess.Popen[bytes]:
    """Start the process that takes a share of one CPU."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency.busy_core", "--occupy", json.dumps([cpu_number, share, busy])]
    )
    sleep(0.3)  # until it has started
    return process


def burn(cpu_number: int, share: float, busy: float) -> None:
    """For ever: compute for `busy` seconds, then sleep, so that computing takes `share` of the time."""
    os.sched_setaffinity(0, [cpu_number])
    while True:
        end = perf_counter() + busy
        while perf_counter() < end:
            pass
        if share < 1:
            sleep(busy * (1 - share) / share)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*json.loads(sys.argv[2]))
    elif sys.argv[1:2] == ["--occupy"]:
        burn(*json.loads(sys.argv[2]))
    else:
        main()
