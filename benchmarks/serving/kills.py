"""What do clients see when workers are killed, and when the server is told to end, under load?

    python -m benchmarks.serving.kills DATA.json [--bundle BUNDLE] [--kills 20] [--drains 5] [--workers 1]

A client in a process of its own keeps 8 connections busy with questions of the data.

Kills: a worker gets SIGKILL at random moments. Every request must get an answer or an error in JSON with a status, and
answers must come again within 3 s; counted is the time from the kill to the first answer to a request that was sent
after it.

Drains: the server gets SIGTERM. A request is lost if all of it was sent on a connection that the server had accepted
and not closed, and no response came. A client cannot tell whether a new connection was accepted, or only waited in the
kernel's queue when the server stopped listening: requests on such connections, sent after SIGTERM and without a
response, are counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep

import numpy as np

from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on, random_sample
from benchmarks.serving.connection import NO_REPLY, Reply, predict_request
from benchmarks.serving.loads import Exchange, closed_loop
from benchmarks.serving.other_process import OtherProcess
from benchmarks.serving.server import Server, is_ready

_PAUSE = 0.1  # seconds that a client waits after it was refused
_ROUND = 3.0  # seconds for which the client keeps asking before it looks whether to go on
_START = 30.0  # seconds in which there must be a worker to kill


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--gap", type=float, nargs=2, default=(3.0, 6.0), help="seconds between kills")
    parser.add_argument("--back", type=float, default=3.0, help="seconds by which answers must come again")
    parser.add_argument("--drains", type=int, default=5)
    parser.add_argument("--drain-limit", type=float, default=30.0, help="seconds in which it must end after SIGTERM")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    options = ["--workers", str(arguments.workers), "--num-threads", str(arguments.threads)]
    options += ["--bundle", arguments.bundle] if arguments.bundle else []
    requests = [predict_request(x.question, x.context) for x in random_sample(read_squad(arguments.data), 500)]
    print(measured_on("starlette", "uvicorn", "uvloop", "httptools"))
    print(f"{arguments.connections} connections, {' '.join(options)}, seed {arguments.seed}\n", flush=True)
    with OtherProcess() as client:
        faults = kill_workers(client, requests, options, arguments, generator)
        faults += drain(client, requests, options, arguments, generator)
    print(f"\n{len(faults)} faults", *faults, sep="\n")
    sys.exit(bool(faults))


def kill_workers(
    client: OtherProcess,
    requests: Sequence[bytes],
    options: Sequence[str],
    arguments: argparse.Namespace,
    generator: np.random.Generator,
) -> list[str]:
    """Kill workers under load; what should not have happened."""
    least, most = arguments.gap
    moments: list[float] = []
    done: list[Exchange] = []
    over = Event()
    with Server(options) as server:

        def keep_asking() -> None:
            load = {"connections": arguments.connections, "seconds": _ROUND, "pause": _PAUSE}
            while not over.is_set():
                done.extend(client.run(closed_loop, server.port, requests, **load))

        asking = Thread(target=keep_asking)
        asking.start()
        try:
            for gap in generator.uniform(least, most, arguments.kills):
                sleep(gap)
                moments.append(kill_one(server, generator))
            sleep(_ROUND)  # the front process has noticed the last kill
            end = monotonic() + arguments.back
            while not is_ready(server.port) and monotonic() < end:
                sleep(0.05)
            sleep(_ROUND)  # there is load while it is ready
        finally:
            over.set()
            asking.join()
        faults = [] if server.get("/info").status == 200 else ["the front process no longer answers"]
    replies = sorted((x.reply for x in done), key=lambda reply: reply.received)
    back = [first_answer_after(moment, replies) - moment for moment in moments]
    print(f"{arguments.kills} kills: {statuses(replies)}")
    times = f"median {np.median(back):.2f}, most {max(back):.2f}; target {arguments.back:g}"
    print(f"seconds until answers came again: {times}")
    print("each:", " ".join(f"{time:.2f}" for time in back), flush=True)
    faults += [f"no answers for {time:.1f} s after kill {k}" for k, time in enumerate(back, 1) if time > arguments.back]
    return faults + [unclear for reply in replies if (unclear := fault_of(reply))]


def kill_one(server: Server, generator: np.random.Generator) -> float:
    """Kill one of the workers, as soon as there is one; the time."""
    end = monotonic() + _START
    while monotonic() < end:
        workers = server.workers()
        if workers:
            os.kill(int(generator.choice(workers)), signal.SIGKILL)
            return monotonic()
        sleep(0.01)
    raise RuntimeError("the server has no worker")


def first_answer_after(moment: float, replies: Sequence[Reply]) -> float:
    """When the first answer came to a request that was sent later."""
    return next((r.received for r in replies if r.sent > moment and r.status == 200), float("inf"))


def fault_of(reply: Reply) -> str:
    """What is wrong with a response; empty if it is an answer or an error in JSON."""
    if reply.status == NO_REPLY:
        return "a connection was closed without a response"
    if reply.status == 200:
        return ""
    try:
        content = json.loads(reply.body)
        clean = {"error", "error_type"} <= content.keys() and reply.status in (429, 503)
    except (ValueError, AttributeError):
        clean = False
    return "" if clean else f"status {reply.status}: {reply.body!r:.200}"


def statuses(replies: Sequence[Reply]) -> str:
    counts = Counter("no response" if r.status == NO_REPLY else str(r.status) for r in replies)
    return f"{len(replies)} requests; " + ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))


def drain(
    client: OtherProcess,
    requests: Sequence[bytes],
    options: Sequence[str],
    arguments: argparse.Namespace,
    generator: np.random.Generator,
) -> list[str]:
    """Send SIGTERM to servers under load; what should not have happened."""
    faults: list[str] = []
    for number in range(1, arguments.drains + 1):
        with Server(options) as server:
            load = {"connections": arguments.connections, "seconds": 4.0, "pause": _PAUSE}
            client.start(closed_loop, server.port, requests, **load)
            sleep(generator.uniform(1, 2))
            server.terminate()
            told = monotonic()
            try:
                status = server.wait(arguments.drain_limit)
            except subprocess.TimeoutExpired:
                faults.append(f"drain {number}: the server had not ended after {arguments.drain_limit:g} s")
                status = None
            took = monotonic() - told
            done: list[Exchange] = client.result()
        before = [x.reply for x in done if x.reply.sent < told]
        after = [x.reply for x in done if x.reply.sent >= told]
        print(f"drain {number}: {took:.2f} s, exit status {status}; before SIGTERM {statuses(before)}; ", end="")
        print(f"after it {statuses(after)}", end="")
        if status:
            faults.append(f"drain {number}: exit status {status}")
        faults += [f"drain {number}, sent before SIGTERM: {fault}" for reply in before if (fault := fault_of(reply))]
        new = [r for r in after if r.status == NO_REPLY and not r.reused]
        print(f"; of these on new connections: {len(new)}", *(f"{1e3 * r.seconds:.1f} ms" for r in new), flush=True)
        faults += [f"drain {number}, after SIGTERM: {fault}" for r in after if r not in new and (fault := fault_of(r))]
    return faults


if __name__ == "__main__":
    main()
