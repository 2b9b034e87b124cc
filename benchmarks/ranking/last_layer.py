"""What it saves to compute only [CLS] in the last layer, as heads that read no other token allow.

    python -m benchmarks.ranking.last_layer BUNDLE RANKINGS.jsonl [--pairs 96] [--batch-sizes 1 8]

Two graphs of `full` take turns on pairs of a query and a document: as the runtime makes it, and with all tokens in the
last layer, too. The logits of both must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dynamic_tinybert.calibration.search.latency import interleaved_ms
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE, compile_bundle, float_precision
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.encoder.task_graph import TaskGraph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.task import SEQUENCE_CLASSIFICATION, SequenceClassification
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokenizer, TextTokens

from benchmarks.common import argument_parser, latency_properties, measured_on, plain_graph, random_sample
from benchmarks.peers.report import interval
from benchmarks.peers.turns import ratio_of_blocks


class AllTokens(SequenceClassification):
    """Computes all tokens in the last layer. Its head reads [CLS] in the graph as it was exported."""

    first_token_only = False


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("rankings", type=Path)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    tokens = tokens_of(bundle, read_rankings(arguments.rankings), arguments.pairs)
    tasks = {"all tokens": AllTokens(), "[CLS] alone": SEQUENCE_CLASSIFICATION}
    graphs = [compiled(bundle, task, arguments.threads) for task in tasks.values()]

    print(f"{measured_on()}; {len(tokens)} pairs of {arguments.rankings.name}, {arguments.threads} threads")
    print("| Pairs at once | all tokens, p50 ms | [CLS] alone, p50 ms | times faster | largest difference |")
    print("| ---: |" + " ---: |" * 4)
    for size in arguments.batch_sizes:
        batches = [tokens[first : first + size] for first in range(0, len(tokens), size)]
        inputs = [stack(batch, multiple=LENGTH_MULTIPLE) for batch in batches]
        logits = [[graph.infer(given)["logits"] for given in inputs] for graph in graphs]  # warms up
        apart = max(float(np.abs(a - b).max()) for a, b in zip(*logits, strict=True))
        requests = [partial(lambda graph, i, given: graph.infer(given[i]), graph, given=inputs) for graph in graphs]
        ms = interleaved_ms(requests, len(inputs), repeats=arguments.repeats)
        gain = interval(ratio_of_blocks(ms[:1], ms[1:], 1), ".3f")
        print(f"| {size} | {np.median(ms[0]):.2f} | {np.median(ms[1]):.2f} | {gain} | {apart:.1e} |", flush=True)


def tokens_of(bundle: Bundle, rankings: Sequence[Ranking], count: int) -> list[TextTokens]:
    """Random pairs of a query and one of its documents, sorted by length."""
    tokenize = TextTokenizer(bundle.tokenizer_json, bundle.max_length)
    pairs = random_sample([(own.query, document) for own in rankings for document in own.documents], count)
    return sorted((tokenize(*pair, truncation=True) for pair in pairs), key=len)


def compiled(bundle: Bundle, task: TaskGraph, threads: int) -> CompiledGraph:
    """The graph of `full`, which drops nothing and so needs no scorers; both tasks with the precision of our own."""
    properties = latency_properties(threads, float_precision(bundle, SEQUENCE_CLASSIFICATION))
    full = LengthConfig.full(bundle.shape.num_layers)
    return CompiledGraph(partial(compile_bundle, bundle, task, plain_graph(bundle), None, full, properties))


if __name__ == "__main__":
    main()
