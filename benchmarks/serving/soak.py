"""Do memory, open files and threads of the server stay the same over many requests of all kinds?

    python -m benchmarks.serving.soak DATA.json [--bundle BUNDLE] [--requests 100000]

Some clients send requests of all lengths, length configurations and budgets, over all protocols; bad ones; and garbage.
Others hang up in the middle, or stall. Every status must be one that the request may get (`mixture.py`), and none 500.

Resident memory is read every 1,000 requests. Open files and threads are counted before the first request and after the
last one, when there is no connection. Before all that come requests that are not counted: the largest ones at each
length configuration, from all clients at once, and random ones. So graphs are compiled, and their largest buffers are
there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import uvloop
from tqdm import tqdm

from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on, random_sample, resident_bytes
from benchmarks.serving.connection import NO_REPLY, Connection
from benchmarks.serving.mixture import Behaviour, Case, Mixture
from benchmarks.serving.server import Server

_STEP = 1000  # requests between two readings of the memory; fewer in a short run
_PATIENCE = 120.0  # seconds; a request without a response by then ends the run
_RECEIVE_TIMEOUT = 3  # seconds, of the server, so that clients that stall do not hold the run up
_EXAMPLES = 10  # unexpected responses that are shown
NONE = "none"
_STALLING = 8  # most clients that stall at the same time


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=5_000, help="requests before those that count")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth", type=float, default=2.0, help="percent by which memory may grow")
    parser.add_argument("--json", type=Path, help="write all readings to this file")
    arguments = parser.parse_args()
    options = ["--workers", str(arguments.workers), "--num-threads", str(arguments.threads)]
    options += ["--receive-timeout-s", str(_RECEIVE_TIMEOUT)]
    options += ["--bundle", arguments.bundle] if arguments.bundle else []
    pairs = [(x.question, x.context) for x in random_sample(read_squad(arguments.data), 300)]
    print(measured_on("starlette", "uvicorn", "uvloop", "httptools"))
    print(f"{arguments.requests} requests of {arguments.clients} clients, {' '.join(options)}, seed {arguments.seed}")
    with Server(options) as server:
        model = json.loads(server.get("/info").body)["model"]
        soak = Soak(server, Mixture(pairs, model, np.random.default_rng(arguments.seed)))
        uvloop.run(soak.run(soak.mixture.largest() * arguments.clients, arguments.clients))
        uvloop.run(soak.run(soak.draw(arguments.warm_up), arguments.clients))
        soak.start_again()
        before = settled(server)
        start = monotonic()
        uvloop.run(soak.run(soak.draw(arguments.requests), arguments.clients))
        seconds = monotonic() - start
        after = settled(server)
        log = server.log()
    print(f"{arguments.requests / seconds:.0f} requests/s\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(soak.readings))
    faults = report(soak, before, after, arguments.growth)
    loud = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
    faults += [f"{len(loud)} lines of the server's log are errors, such as {loud[0]!r:.200}"] if loud else []
    print(f"\n{len(faults)} faults", *faults, *soak.examples, sep="\n")
    sys.exit(bool(faults))


class Soak:
    """Clients of all kinds, and what they and the readings saw."""

    def __init__(self, server: Server, mixture: Mixture) -> None:
        self._server = server
        self.mixture = mixture
        self.start_again()

    def start_again(self) -> None:
        """Forget all that was counted."""
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.examples: list[str] = []
        self.readings: list[dict[str, float]] = []

    def draw(self, count: int) -> Iterable[Case]:
        """Random requests, with a progress bar; memory is read in between."""
        step = min(_STEP, max(1, count // 10))
        for number in tqdm(range(1, count + 1), disable=None):
            yield self.mixture.draw()
            if number % step == 0:
                self.readings.append({"requests": number, **memory(self._server)})

    async def run(self, cases: Iterable[Case], clients: int) -> None:
        """Send requests."""
        left = iter(cases)
        stalling: set[asyncio.Task[None]] = set()

        async def be_client() -> None:
            connection: Connection | None = None
            for case in left:
                if case.behaviour is Behaviour.STALL:
                    if len(stalling) == _STALLING:
                        await asyncio.wait(stalling, return_when=asyncio.FIRST_COMPLETED)
                    task = asyncio.create_task(self._stall(case))
                    stalling.add(task)
                    task.add_done_callback(stalling.discard)
                else:
                    if connection is None or not connection.usable:
                        connection = await Connection.open(self._server.port)
                    await self._send(case, connection)
            if connection is not None:
                connection.close()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(be_client())
        await asyncio.gather(*stalling)

    async def _send(self, case: Case, connection: Connection) -> None:
        """Send a request on a connection of its own or one that is kept."""
        asking = asyncio.ensure_future(connection.ask(case.data))
        if case.behaviour is Behaviour.HANG_UP:
            await asyncio.sleep(0.002)
            connection.reset()
            await asking
            self.statuses[case.kind, NO_REPLY] += 1
            return
        async with asyncio.timeout(_PATIENCE):
            reply = await asking
        self._count(case, reply.status, reply.body)
        if case.last:
            connection.close()

    async def _stall(self, case: Case) -> None:
        """Send a request byte by byte, without its end; the server must end the connection in time."""
        connection = await Connection.open(self._server.port)
        asking = asyncio.ensure_future(connection.ask(case.data[:40]))
        end = monotonic() + 3 * _RECEIVE_TIMEOUT
        position = 40
        while not asking.done() and monotonic() < end:
            await asyncio.wait([asking], timeout=0.2)
            connection.send(case.data[position : position + 20])
            position += 20
        if asking.done():
            self._count(case, asking.result().status, asking.result().body)
        else:
            self.unexpected[f"{case.kind}: the connection was still open after {3 * _RECEIVE_TIMEOUT} s"] += 1
        connection.reset()

    def _count(self, case: Case, status: int, body: bytes) -> None:
        self.statuses[case.kind, status] += 1
        if status not in case.expected:
            name = "no response" if status == NO_REPLY else f"status {status}"
            self.unexpected[f"{case.kind}: {name}"] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{name} to {case.data[:60]!r} … {case.data[-60:]!r}: {body[:300]!r}")


def processes(server: Server) -> dict[str, int]:
    """The server's processes by name."""
    return {"front": server.pid} | {f"worker {i}": pid for i, pid in enumerate(server.workers(), 1)}


def memory(server: Server) -> dict[str, float]:
    """Resident MiB of each process."""
    return {name: resident_bytes(pid) / 2**20 for name, pid in processes(server).items()}


def settled(server: Server) -> dict[str, tuple[int, int]]:
    """Open files and threads of each process, when the server has noticed that all clients have gone."""
    counted: dict[str, tuple[int, int]] = {}
    for _ in range(40):
        before, counted = (
            counted,
            {
                name: (len(list(Path(f"/proc/{pid}/fd").iterdir())), len(list(Path(f"/proc/{pid}/task").iterdir())))
                for name, pid in processes(server).items()
            },
        )
        if counted == before:
            break
        sleep(0.5)
    return counted


def report(
    soak: Soak, before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], growth: float
) -> list[str]:
    """Print what was seen; what should not have been."""
    print("| Request | Responses |\n| --- | --- |")
    for kind in sorted({kind for kind, _ in soak.statuses}):
        counts = sorted((status, count) for (own, status), count in soak.statuses.items() if own == kind)
        print(f"| {kind} | {', '.join(f'{status or NONE}: {count}' for status, count in counts)} |")
    faults = [f"{count} times {what}" for what, count in soak.unexpected.most_common()]
    if before.keys() != after.keys():
        faults.append(f"the processes were {', '.join(before)} and are {', '.join(after)}")
    names = [name for name in before if name in after]
    print("\n| MiB after | " + " | ".join(names) + " |\n| ---: |" + " ---: |" * len(names))
    for reading in shown(soak.readings):
        cells = " | ".join(f"{reading.get(name, float('nan')):.1f}" for name in names)
        print(f"| {reading['requests']:.0f} | {cells} |")
    print("\n| | MiB, first tenth | MiB, last tenth | change | files | threads |\n| --- |" + " ---: |" * 5)
    tenth = max(1, len(soak.readings) // 10)
    for name in names:
        first, last = (np.mean([r[name] for r in own]) for own in (soak.readings[:tenth], soak.readings[-tenth:]))
        change = 100 * (last / first - 1)
        files, threads = (f"{b} to {a}" for b, a in zip(before[name], after[name], strict=True))
        print(f"| {name} | {first:.1f} | {last:.1f} | {change:+.2f} % | {files} | {threads} |")
        if change > growth:
            faults.append(f"the memory of {name} grew by {change:.2f} %; target at most {growth:g} %")
        if any(a > b for b, a in zip(before[name], after[name], strict=True)):
            faults.append(f"{name} had files and threads {before[name]}, and now {after[name]}")
    return faults


def shown(readings: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """About 20 of the readings."""
    step = max(1, len(readings) // 20)
    return list(readings[::step])


if __name__ == "__main__":
    main()
