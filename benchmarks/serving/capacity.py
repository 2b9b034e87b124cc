"""How many requests a server answers in a second."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.serving.loads import closed_loop
from benchmarks.serving.other_process import OtherProcess
from benchmarks.serving.server import Server


def served_per_second(
    server: Server, client: OtherProcess, requests: Sequence[bytes], seconds: float, connections: int = 8
) -> float:
    """How many of the requests the server answers in a second, on connections that are always busy."""
    done = client.run(closed_loop, server.port, requests, connections=connections, seconds=seconds)
    if any(x.reply.status != 200 for x in done):
        sys.exit("a request of a closed loop got no answer")
    return len(done) / (max(x.reply.received for x in done) - min(x.reply.sent for x in done))
