"""How many worker processes should a server have? What each number of them serves, and how long a single request takes.

    python -m benchmarks.serving.worker_counts DATA.json [--workers 1 2] [--rounds 5] [--seconds 3] [--threads 2]

One server for each number of workers; all have the same number of threads, which the workers share evenly. In each
round the servers take turns at each length configuration: single requests, then some connections that are always busy.
A client in a process of its own sends random questions of DATA. The table has the medians over rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on, random_sample
from benchmarks.serving.capacity import served_per_second
from benchmarks.serving.connection import predict_request
from benchmarks.serving.loads import closed_loop
from benchmarks.serving.other_process import OtherProcess
from benchmarks.serving.server import Server


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--length-configs", nargs="+", default=["full", "balanced", "fast"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--questions", type=int, default=200, help="different ones")
    parser.add_argument("--singles", type=int, default=50, help="single requests of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="that a turn's connections are busy")
    arguments = parser.parse_args()
    questions = random_sample(read_squad(arguments.data), arguments.questions)
    options = ["--num-threads", str(arguments.threads)] + (["--bundle", arguments.bundle] if arguments.bundle else [])
    print(measured_on("starlette", "uvicorn", "uvloop", "httptools"))
    print(
        f"{len(questions)} questions, {arguments.connections} connections, {arguments.threads} threads; "
        f"{arguments.rounds} rounds of {arguments.singles} single requests and {arguments.seconds:g} s\n",
        flush=True,
    )
    rates: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    singles: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    with OtherProcess() as client, ExitStack() as stack:
        servers = {n: stack.enter_context(Server([*options, "--workers", str(n)])) for n in arguments.workers}
        for _ in range(arguments.rounds):
            for name in arguments.length_configs:
                requests = [predict_request(own.question, own.context, {"length_config": name}) for own in questions]
                for workers, server in servers.items():
                    singles[name, workers].append(single_seconds(client, server, requests, arguments.singles))
                    rates[name, workers].append(
                        served_per_second(server, client, requests, arguments.seconds, arguments.connections)
                    )
    print("| Configuration | Workers | Requests/s | A single request, ms |\n| --- | ---: | ---: | ---: |")
    for key, values in rates.items():
        print(f"| {key[0]} | {key[1]} | {median(values):.0f} | {1e3 * median(singles[key]):.2f} |")


def single_seconds(client: OtherProcess, server: Server, requests: Sequence[bytes], count: int) -> float:
    """The median time of requests one after the other."""
    client.run(closed_loop, server.port, requests, connections=1, count=20)  # warms up
    done = client.run(closed_loop, server.port, requests, connections=1, count=count)
    return median(one.reply.seconds for one in done)


if __name__ == "__main__":
    main()
