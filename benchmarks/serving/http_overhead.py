"""What does HTTP cost, compared with direct calls in one process?

    python -m benchmarks.serving.http_overhead DATA.json [--bundle BUNDLE] [--rounds 10] [--seconds 3]

Throughput: rounds of some seconds take turns, in which a client in a process of its own keeps 8 connections to
`dynamic-tinybert serve` busy, or 8 threads of this process call a QuestionAnswerer while the server has nothing to do.
Single requests: blocks take turns in the same way, with one request at a time. Both give the same answers, which is
checked. Texts are cut so that question and text have 64 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from time import monotonic, process_time

import numpy as np
from tqdm import tqdm

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on, random_sample
from benchmarks.serving.connection import predict_request
from benchmarks.serving.loads import Exchange, closed_loop
from benchmarks.serving.other_process import OtherProcess
from benchmarks.serving.server import Server, cpu_seconds
from benchmarks.serving.texts import Pair, pairs_of_length

_PAIRS = 64  # different questions


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--length-config", default="full")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--callers", type=int, default=8, help="connections, and threads")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round")
    parser.add_argument("--singles", type=int, default=100, help="single requests of a round")
    parser.add_argument("--threads", type=int, default=2, help="of the model, on both sides")
    arguments = parser.parse_args()
    qa = QuestionAnswerer.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    pairs = pairs_of_length(qa.model.bundle, random_sample(read_squad(arguments.data)), arguments.tokens, _PAIRS)
    options = ["--num-threads", str(arguments.threads)] + (["--bundle", arguments.bundle] if arguments.bundle else [])
    print(measured_on("starlette", "uvicorn", "uvloop", "httptools"))
    print(
        f"{arguments.tokens} tokens, {arguments.length_config}, {arguments.threads} threads; {arguments.rounds} rounds "
        f"of {arguments.seconds:g} s and of {arguments.singles} single requests",
        flush=True,
    )
    with Server(options) as server, OtherProcess() as client:
        measure(qa, pairs, server, client, arguments)


def measure(
    qa: QuestionAnswerer, pairs: list[Pair], server: Server, client: OtherProcess, arguments: argparse.Namespace
) -> None:
    config = arguments.length_config
    requests = [predict_request(*pair, {"length_config": config}) for pair in pairs]
    expected = [qa(*pair, length_config=config) for pair in pairs]

    def over_http(connections: int, **bound: float) -> list[Exchange]:
        done: list[Exchange] = client.run(closed_loop, server.port, requests, connections=connections, **bound)
        for exchange in done:
            if exchange.reply.status != 200:
                sys.exit(f"status {exchange.reply.status}: {exchange.reply.body!r:.300}")
        wrong = sum(json.loads(x.reply.body) != expected[x.number % len(pairs)] for x in done[: len(pairs)])
        if wrong:
            sys.exit(f"{wrong} answers differ from those of direct calls, such as {done[0].reply.body!r:.300}")
        return done

    def direct(number: int) -> float:
        start = monotonic()
        qa(*pairs[number % len(pairs)], length_config=config)
        return monotonic() - start

    over_http(1, count=len(pairs))
    over_http(arguments.callers, seconds=1)
    direct_calls(direct, arguments.callers, 1)

    rates: dict[str, list[float]] = {"direct": [], "http": []}
    singles: dict[str, list[float]] = {"direct": [], "http": []}
    usage: list[Mapping[str, float]] = []
    cpu_direct: list[float] = []
    for number in tqdm(range(arguments.rounds), disable=None):
        for way in ("direct", "http")[:: -1 if number % 2 else 1]:
            if way == "direct":
                used = process_time()
                rates[way].append(direct_calls(direct, arguments.callers, arguments.seconds))
                cpu_direct.append((process_time() - used) / (rates[way][-1] * arguments.seconds))
                singles[way] += [direct(i) for i in range(arguments.singles)]
                continue
            before = cpu_times(server, client)
            done = over_http(arguments.callers, seconds=arguments.seconds)
            usage.append({name: (t - before[name]) / len(done) for name, t in cpu_times(server, client).items()})
            start, end = min(x.reply.sent for x in done), max(x.reply.received for x in done)
            rates[way].append(len(done) / (end - start))
            singles[way] += [x.reply.seconds for x in over_http(1, count=arguments.singles)]
    report(rates, singles, arguments.callers)
    cpu = ", ".join(f"{name} {1e3 * median(use[name] for use in usage):.2f}" for name in usage[0])
    print(f"CPU ms of a request, {os.cpu_count()} CPUs: direct {1e3 * median(cpu_direct):.2f}; HTTP: {cpu}")


def direct_calls(call: Callable[[int], float], callers: int, seconds: float) -> float:
    """Calls per second of some threads."""
    numbers, start = count(), monotonic()

    def keep_calling() -> int:
        done = 0
        while monotonic() < start + seconds:
            call(next(numbers))
            done += 1
        return done

    with ThreadPoolExecutor(callers) as pool:
        done = sum(pool.map(lambda _: keep_calling(), range(callers)))
    return done / (monotonic() - start)


def cpu_times(server: Server, client: OtherProcess) -> dict[str, float]:
    """CPU seconds of each process so far."""
    return {
        "front": cpu_seconds(server.pid),
        "workers": sum(map(cpu_seconds, server.workers())),
        "client": client.run(process_time),
    }


def report(rates: Mapping[str, list[float]], singles: Mapping[str, list[float]], callers: int) -> None:
    names = {"direct": f"direct, {callers} threads", "http": f"HTTP, {callers} connections"}
    print("\n| | requests/s (median) | single request, ms (median) | p95, ms |\n| --- | ---: | ---: | ---: |")
    for way, name in names.items():
        middle, high = 1e3 * np.percentile(singles[way], (50, 95))
        print(f"| {name} | {median(rates[way]):.1f} | {middle:.2f} | {high:.2f} |")
    low, middle, high = np.percentile(np.array(rates["http"]) / rates["direct"], (25, 50, 75))
    added = 1e3 * (median(singles["http"]) - median(singles["direct"]))
    print(f"\nthroughput over HTTP / direct: {middle:.3f} (quartiles {low:.3f} to {high:.3f}); target at least 0.9")
    print(f"added to a single request: {added:.2f} ms (difference of medians); target at most 2 ms")


if __name__ == "__main__":
    main()
