"""Our reranker against sentence-transformers' CrossEncoder and ONNX Runtime: time, memory and quality of rankings.

    python -m benchmarks.ranking.against_peers RANKINGS.jsonl CHECKPOINT BUNDLE --calibration-data PAIRS.jsonl \\
        --prepared FOLDER --output RESULT --peer-python PEERS/bin/python

RANKINGS.jsonl has queries with 100 documents each, as `make_rankings` writes them; BUNDLE was exported from CHECKPOINT;
PAIRS.jsonl has what the bundle was calibrated on: pairs of a query and a document. The first run writes the peers'
models to FOLDER, each as its documentation advises. Every system runs in a process of its own, which is stopped while
it is another one's turn, and takes turns with the others in blocks of queries. The time of a query is from its texts to
the 10 best documents. A table is printed; RESULT.json gets all times and orders, RESULT.png a plot.

The peers need an environment of their own, as sentence-transformers' ONNX backend needs an older transformers:

    python -m venv PEERS && PEERS/bin/pip install 'sentence-transformers[onnx,openvino]' datasets
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP, ndcg, reciprocal_rank
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.text_files import read_texts

from benchmarks.common import argument_parser, measured_on, random_sample
from benchmarks.peers.process import WorkerProcess
from benchmarks.peers.report import Columns, draw, interval, number, table
from benchmarks.peers.turns import Interval, ratio_of_blocks, turns
from benchmarks.ranking.systems import System, ours, peers, prepare_peers


@dataclass
class Measurement:
    """What one system did; lists are in the order of the queries.

    Attributes:
        seconds: Time of each query.
        orders: The best documents of each query by their index, best first.
        resident_bytes: Resident memory after all queries.
    """

    seconds: list[float]
    orders: list[list[int]]
    resident_bytes: int = 0


@dataclass(frozen=True)
class Figures:
    """The figures of one system; times are of a query.

    Attributes:
        p50_ms: Median time.
        p95_ms: The time that 95 % of the queries do not exceed.
        ratio: The time divided by that of the fastest peer: median over the blocks.
        resident_mib: Resident memory after all queries.
        ndcg: Mean nDCG@10 in percent.
        change: nDCG@10 minus that of the reference.
        mrr: Mean MRR@10 in percent.
    """

    p50_ms: float
    p95_ms: float
    ratio: Interval
    resident_mib: float
    ndcg: float
    change: Interval
    mrr: float


COLUMNS: Columns[Figures] = (
    ("p50 ms", lambda f: number(f.p50_ms, 0)),
    ("p95 ms", lambda f: number(f.p95_ms, 0)),
    ("x time of {reference}", lambda f: interval(f.ratio, ".3f")),
    ("resident MiB", lambda f: number(f.resident_mib, 0)),
    (f"nDCG@{TOP}", lambda f: number(f.ndcg, 2)),
    ("against {reference}", lambda f: interval(f.change, "+.2f")),
    (f"MRR@{TOP}", lambda f: number(f.mrr, 2)),
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rankings", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path, help="measured at each of its length configurations")
    parser.add_argument("--calibration-data", type=Path, required=True, help="pairs of a query and a document")
    parser.add_argument("--prepared", type=Path, required=True, help="folder for the peers' models")
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python of the peers' environment")
    parser.add_argument("--isa", default="avx512_vnni", choices=("avx2", "avx512", "avx512_vnni"))
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=JSON", help="ours again, with options of Reranker.rank"
    )
    parser.add_argument("--queries", type=int, help="number of random queries; by default all")
    parser.add_argument("--num-samples", type=int, default=300, help="pairs to calibrate a peer with")
    parser.add_argument("--batch-size", type=int, default=32, help="of the peers; 32 is CrossEncoder's own")
    parser.add_argument("--block", type=int, default=5, help="queries per turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no stopped worker is left behind

    bundle = open_bundle(arguments.bundle)
    pairs = pairs_of(arguments.calibration_data, bundle, arguments.num_samples)
    checkpoint, prepared, isa, python = arguments.checkpoint, arguments.prepared, arguments.isa, arguments.peer_python
    of_peers = prepare_peers(checkpoint, pairs, prepared, isa, len(pairs), python)
    own = ours(bundle, bundle.length_configs)
    for also in arguments.also:
        name, _, options = also.partition("=")
        own += ours(bundle, bundle.length_configs, json.loads(options), f", {name}")
    others = peers(checkpoint, prepared, isa, bundle.max_length, python, arguments.batch_size)
    rankings = random_sample(read_rankings(arguments.rankings), arguments.queries, arguments.seed)
    measured = measure([*own, *others], rankings, arguments)
    best = min((system.name for system in others), key=lambda name: np.median(measured[name].seconds))
    found = figures(measured, best, rankings, arguments.block)

    title = f"{len(rankings)} queries, {fmean(len(r.documents) for r in rankings):.0f} documents each, of "
    title += f"{arguments.rankings.name}; {arguments.threads} threads"
    machine = measured_on()
    print(f"{title}; {machine}\npeers: {', '.join(f'{name} {version}' for name, version in of_peers.items())}")
    print(*table(found, COLUMNS, best), sep="\n")
    write(arguments, f"{title}; {machine}", of_peers, found, measured)
    draw(
        {name: (of_system.p50_ms, of_system.ndcg) for name, of_system in found.items()},
        [system.name for system in own],
        f"{title}\n{machine}",
        arguments.output.with_suffix(".png"),
        score=f"nDCG@{TOP}",
        time="p50 of a query with its documents, ms",
    )


def pairs_of(data: Path, bundle: Bundle, count: int) -> list[tuple[str, str]]:
    examples, _ = read_texts(data, Labels.of(bundle))
    pairs = [(example.text, example.text_pair) for example in examples if example.text_pair is not None]
    return random_sample([(query, document) for query, document in pairs], count)


def measure(systems: list[System], rankings: list[Ranking], arguments: argparse.Namespace) -> dict[str, Measurement]:
    """Rank all queries with all systems. The first query runs before each turn, too, untimed."""
    asked = [{"query": ranking.query, "documents": ranking.documents} for ranking in rankings]
    measured = {system.name: Measurement([], []) for system in systems}
    processes: dict[str, WorkerProcess] = {}
    with ExitStack() as stack:
        for system in tqdm(systems, desc="loading", disable=None):
            processes[system.name] = stack.enter_context(system.start(arguments.threads))
            processes[system.name].ask(rank=asked[:1], top=TOP)
        for name, block in turns({system.name: len(asked) for system in systems}, arguments.block, "queries"):
            processes[name].ask(rank=asked[:1], top=TOP)
            reply = processes[name].ask(rank=asked[block.start : block.stop], top=TOP)
            measured[name].seconds += reply["seconds"]
            measured[name].orders += reply["orders"]
        for name, process in processes.items():
            measured[name].resident_bytes = process.resident_bytes()
    return measured


def figures(
    measured: dict[str, Measurement], reference: str, rankings: list[Ranking], block: int
) -> dict[str, Figures]:
    """The figures of each system, by its name."""
    graded = {name: grades_in_order(result.orders, rankings) for name, result in measured.items()}
    scores = {name: [100 * ndcg(grades) for grades in own] for name, own in graded.items()}

    def times(name: str) -> npt.NDArray[np.float64]:
        return np.array([measured[name].seconds])

    found = {}
    for name, result in measured.items():
        p50, p95 = np.percentile(result.seconds, (50, 95))
        found[name] = Figures(
            p50_ms=1e3 * float(p50),
            p95_ms=1e3 * float(p95),
            ratio=ratio_of_blocks(times(name), times(reference), block),
            resident_mib=result.resident_bytes / 2**20,
            ndcg=fmean(scores[name]),
            change=paired_bootstrap(scores[name], scores[reference]),
            mrr=100 * fmean(map(reciprocal_rank, graded[name])),
        )
    return found


def grades_in_order(orders: list[list[int]], rankings: list[Ranking]) -> list[list[float]]:
    """The grades of each query's documents, best document first; those beyond the best ones in any order."""
    every = []
    for order, ranking in zip(orders, rankings, strict=True):
        rest = set(range(len(ranking.documents))) - set(order)
        every.append([ranking.grades[i] for i in (*order, *rest)])
    return every


def write(
    arguments: argparse.Namespace,
    title: str,
    of_peers: dict[str, str],
    found: dict[str, Figures],
    measured: dict[str, Measurement],
) -> None:
    result = {
        "title": title,
        "peers": of_peers,
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "figures": {name: asdict(of_system) for name, of_system in found.items()},
        "measured": {name: asdict(result) for name, result in measured.items()},
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
