"""Do budgets keep requests in time when more arrive than `full` can serve, and what does that cost in F1?

    python -m benchmarks.serving.open_loop_http DATA.json OUTPUT [--bundle BUNDLE] [--workers 1] [--threads 2]

First, single requests with `full` give its median time, its answers and their F1, and 8 connections that are always
busy give the number of requests a second that `full` can serve. Then questions of the data arrive at random times
(Poisson) at multiples of that rate: once with `full`, once with a budget of 4 times the median, which is the timeout,
too. Times are those that the client sees, from the moment at which a request was to be sent.

A table is printed; OUTPUT.json gets all requests, OUTPUT.png a plot.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Thread
from time import monotonic

import numpy as np

from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1

from benchmarks.common import measured_on
from benchmarks.serving.arrivals import poisson
from benchmarks.serving.capacity import served_per_second
from benchmarks.serving.connection import NO_REPLY, predict_request
from benchmarks.serving.loads import Exchange, closed_loop, open_loop
from benchmarks.serving.open_loop_options import options_parser, questions_of
from benchmarks.serving.open_loop_runs import ANSWERED, REFUSED, Outcome, Run, plot, table, write_json
from benchmarks.serving.other_process import OtherProcess
from benchmarks.serving.server import Server

_INSIDE = re.compile(r"^dynamic_tinybert_(?:queued|running) (\S+)$", re.MULTILINE)


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--workers", type=int, default=1, help="processes, which have equal shares of the threads")
    arguments = parser.parse_args()
    examples = questions_of(arguments)
    options = ["--num-threads", str(arguments.threads), "--max-queued", str(arguments.max_queued)]
    options += ["--workers", str(arguments.workers)]
    options += ["--bundle", arguments.bundle] if arguments.bundle else []
    heading = measured_on("starlette", "uvicorn", "uvloop", "httptools")
    print(f"{heading}\n{len(examples)} questions, {' '.join(options)}, seed {arguments.seed}", flush=True)
    with Server(options) as server, OtherProcess() as client:
        measure(server, client, examples, arguments, heading)


def measure(
    server: Server, client: OtherProcess, examples: Sequence[Example], arguments: argparse.Namespace, heading: str
) -> None:
    def requests(order: Sequence[int], **parameters: object) -> list[bytes]:
        return [predict_request(examples[i].question, examples[i].context, parameters) for i in order]

    everything = range(len(examples))
    in_full = requests(everything, length_config="full")
    client.run(closed_loop, server.port, in_full, connections=8, count=min(100, len(in_full)))  # warms up
    singles = client.run(closed_loop, server.port, in_full, connections=1, count=len(in_full))
    full_f1 = {x.number: outcome_of(x, x.number, examples, x.due, "full").f1 for x in singles}
    p50 = float(np.median([x.reply.seconds for x in singles]))
    if any(x.reply.status != 200 for x in singles):
        sys.exit("a single request got no answer")
    capacity = served_per_second(server, client, in_full, min(arguments.seconds, 10))
    budget_ms = 1e3 * arguments.budget * p50
    measured = (
        f"full: {capacity:.1f} requests/s, median {1e3 * p50:.1f} ms, F1 {np.mean(list(full_f1.values())):.2f}; "
        f"budget {budget_ms:.0f} ms; {arguments.seconds:g} s a run, at most {arguments.max_queued} waiting"
    )
    print(f"{measured}\n", flush=True)

    runs: list[Run] = []
    for load in arguments.loads:
        for budgets in (False, True):
            generator = np.random.default_rng(arguments.seed)  # the same arrivals and questions with and without
            arrivals = poisson(load * capacity, arguments.seconds, generator)
            order = [int(i) for i in generator.integers(len(examples), size=len(arrivals))]
            parameters = {"budget_ms": budget_ms, "timeout_ms": budget_ms} if budgets else {"length_config": "full"}
            start = monotonic()
            load_once = partial(client.run, open_loop, server.port, requests(order, **parameters), arrivals)
            done, queue = watched(server, load_once)
            outcomes = [outcome_of(x, order[x.number], examples, start, "" if budgets else "full") for x in done]
            runs.append(Run(load, budgets, load * capacity, budget_ms, outcomes, [(t - start, n) for t, n in queue]))
            print(f"done: {runs[-1].name}", file=sys.stderr)
    afterwards = served_per_second(server, client, in_full, min(arguments.seconds, 10))
    print(f"{table(runs, full_f1)}\n\nfull, measured again after the runs: {afterwards:.1f} requests/s")
    settings = {key: str(value) for key, value in vars(arguments).items()} | {"machine": heading, "full": measured}
    write_json(arguments.output.with_suffix(".json"), runs, settings)
    plot(arguments.output.with_suffix(".png"), runs, f"{heading}\n{measured}")


def outcome_of(exchange: Exchange, question: int, examples: Sequence[Example], start: float, config: str) -> Outcome:
    """What became of a request.

    Args:
        exchange: The request and its response.
        question: Index of its question.
        examples: The questions.
        start: When the run began.
        config: The length configuration that was asked for; empty if the response says which one ran.
    """
    reply, due = exchange.reply, exchange.due
    seconds = reply.received - due
    if reply.status == 200:
        answer = json.loads(reply.body)
        score = f1(answer["answer"], examples[question].answers)
        return Outcome(question, due - start, seconds, ANSWERED, config or answer["length_config"], score)
    if reply.status == 429:
        return Outcome(question, due - start, seconds, REFUSED)
    status = "no response" if reply.status == NO_REPLY else f"status {reply.status}"
    return Outcome(question, due - start, seconds, status)


def watched(server: Server, load: Callable[[], list[Exchange]]) -> tuple[list[Exchange], list[tuple[float, int]]]:
    """Run a load; also the times at which /metrics was asked, five times a second, with the requests in the server."""
    inside: list[tuple[float, int]] = []
    over = Event()

    def watch() -> None:
        while not over.wait(0.2):
            text = server.get("/metrics").body.decode()
            found = _INSIDE.findall(text)
            if len(found) != 2:
                raise RuntimeError(f"/metrics does not say how many jobs wait and run:\n{text[:1000]}")
            inside.append((monotonic(), sum(int(float(number)) for number in found)))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        return load(), inside
    finally:
        over.set()
        watcher.join()


if __name__ == "__main__":
    main()
