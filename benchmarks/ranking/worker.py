"""One reranker in a process of its own. It reads commands from standard input and writes replies, one JSON per line.

    python -m benchmarks.ranking.worker LOADER FUNCTION OPTIONS

FUNCTION `load` of a module of this folder gives the reranker; any other, such as `prepare`, is called, and that is all.
This runs in the environment of the peers, too, and so imports nothing of our package.

{"rank": [{"query", "documents"}, ...], "top": n}   ranks the documents of each query; replies with the time of each,
    from texts to the order, and with the indices of the first n documents, best first
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from time import perf_counter

from .model import Rank


def main(loader: str, function: str, options: str) -> None:
    replies, sys.stdout = sys.stdout, sys.stderr  # keeps what libraries print out of the replies
    made = getattr(import_module(f"benchmarks.ranking.{loader}"), function)(**json.loads(options))
    if function != "load":
        return
    rank: Rank = made
    for line in sys.stdin:
        asked = json.loads(line)
        seconds, orders = [], []
        for query in asked["rank"]:
            started = perf_counter()
            order = rank(query["query"], query["documents"], asked["top"])
            seconds.append(perf_counter() - started)
            orders.append(order)
        print(json.dumps({"seconds": seconds, "orders": orders}), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
