"""Time and memory of static, dynamic and elastic graphs that serve several length configurations at mixed lengths.

    python -m benchmarks.latency.graph_kinds BUNDLE DATA.json [--length TOKENS] [--json FILE]

static: a graph for each configuration and each padded length; dynamic: a graph for each configuration; elastic: one
graph that has the configuration as inputs. Inputs, and the tokens that selections keep, are padded to a multiple of 16,
8 or 1 ("8, 1" is what the runtime does with INT8 graphs). Each kind serves one and eight configurations (the bundle's,
and some between them), in a process of its own: a first pass over random windows of DATA, in which graphs are compiled
and kernels prepared, then passes that take turns. Memory is the resident memory beyond that before the first graph.
Ratios are those of sums over the windows, with the lowest and the highest ratio of a pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino as ov

from dynamic_tinybert.runtime import LengthConfig, cpu
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.graph import bounds
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import (
    argument_parser,
    first_windows_of,
    latency_properties,
    plain_graph,
    random_sample,
    resident_mib,
    selecting_graph,
)

MULTIPLES = ((8, 1), (16, 16), (8, 8), (1, 1))  # of inputs, and of kept tokens; the first pair is that of the runtime
KINDS = [(kind, *multiples) for kind in ("dynamic", "elastic") for multiples in MULTIPLES]
KINDS.append(("static", 16, 16))  # OpenVINO 2026.4.1 crashes in a static Gather of fewer than 16 of a sequence's tokens
COUNTS = (1, 8)
WARM_UP = 3
Arrays = dict[str, np.ndarray]


def configurations(bundle: Bundle, count: int) -> list[LengthConfig]:
    """The bundle's configurations, and more of them whose thresholds are multiples of theirs."""
    found = [named.config for named in bundle.length_configs.values()][:count]
    selecting = [config for config in found if config.selecting_layers]
    for factor in (0.8, 1.2, 0.9, 1.1):
        for config in selecting:
            thresholds = tuple(None if t is None else factor * t for t in config.thresholds)
            found.append(LengthConfig(config.keep_ratios, thresholds))
    return found[:count]


def graphs(
    bundle: Bundle, kind: str, kept_multiple: int, threads: int
) -> Callable[[LengthConfig, int], ov.InferRequest]:
    """A function that returns the request for a configuration and a padded length."""
    core, plain = extension_library.core(), plain_graph(bundle)
    properties = latency_properties(threads)
    made: dict[object, ov.InferRequest] = {}

    def request(config: LengthConfig, length: int) -> ov.InferRequest:
        key = {"static": (config, length), "dynamic": config, "elastic": None}[kind]
        if key not in made:
            model = plain
            if kind == "static":
                model = plain.clone()
                model.reshape({given.get_any_name(): [1, length] for given in model.inputs})
            graph = selecting_graph(bundle, model, None if kind == "elastic" else config, kept_multiple)
            made[key] = core.compile_model(graph, "CPU", properties).create_infer_request()
        return made[key]

    return request


def padded(arrays: Arrays, multiple: int, longest: int) -> Arrays:
    length = arrays["input_ids"].shape[1]
    more = min(-(-length // multiple) * multiple, longest) - length
    return {name: np.pad(array, ((0, 0), (0, more))) for name, array in arrays.items()}


def serve(arguments: argparse.Namespace, kind: str, multiple: int, kept_multiple: int, count: int) -> None:
    """Print the seconds of a first pass and the memory after it, then those of another pass for each line of input."""
    bundle = open_bundle(arguments.bundle)
    windows = first_windows_of(bundle, random_sample(read_squad(arguments.data)))
    if arguments.length:
        windows.sort(key=lambda window: abs(len(window) - arguments.length))
    del windows[arguments.windows :]
    inputs = [padded(dict(stack([window])), multiple, bundle.max_length) for window in windows]
    configs = configurations(bundle, count)
    before = resident_mib()
    request_of = graphs(bundle, kind, kept_multiple, arguments.threads)

    def one_pass() -> list[float]:
        seconds = []
        for arrays in inputs:
            for config in configs:
                given = arrays | (bounds(config) if kind == "elastic" else {})
                started = perf_counter()
                request_of(config, arrays["input_ids"].shape[1]).infer(given, share_inputs=True)
                seconds.append(perf_counter() - started)
        return seconds

    print(json.dumps(one_pass()), resident_mib() - before, flush=True)
    for _ in sys.stdin:  # each line asks for another pass
        for arrays in inputs[:WARM_UP]:
            for config in configs:
                given = arrays | (bounds(config) if kind == "elastic" else {})
                request_of(config, arrays["input_ids"].shape[1]).infer(given, share_inputs=True)
        print(json.dumps(one_pass()), resident_mib() - before, flush=True)


class Kind:
    """A kind of graph that serves requests in a process of its own."""

    def __init__(self, kind: str, multiple: int, kept_multiple: int, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.latency.graph_kinds", *sys.argv[1:]]
        command += ["--only", kind, *map(str, (multiple, kept_multiple, count))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.configs = count
        self.mib = 0.0
        self.first = self.reply()
        self.later: list[list[list[float]]] = []

    def one_pass(self) -> None:
        assert self.process.stdin is not None
        print("again", file=self.process.stdin, flush=True)
        self.later.append(self.reply())

    def reply(self) -> list[list[float]]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended with {self.process.wait()}")
        seconds, _, mib = line.rpartition(" ")
        self.mib = float(mib)
        return np.reshape(json.loads(seconds), (-1, self.configs)).tolist()  # type: ignore[no-any-return]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def rows(found: dict[tuple[str, int, int], tuple[Kind, Kind]]) -> Iterator[str]:
    _, base = found[KINDS[0]]
    base_seconds = np.sum(base.later, (1, 2))
    for (kind, multiple, kept_multiple), (one, many) in found.items():
        seconds = np.sum(many.later, (1, 2))
        ratios = seconds / base_seconds
        of_full = np.array(many.later)[:, :, 0].sum(1) / np.array(base.later)[:, :, 0].sum(1)
        yield (
            f"| {kind} | {multiple}, {kept_multiple} | {1e3 * np.median(many.later):.2f} | "
            f"{seconds.sum() / base_seconds.sum():.3f} [{ratios.min():.3f}, {ratios.max():.3f}] | "
            f"{np.median(of_full):.3f} [{of_full.min():.3f}, {of_full.max():.3f}] | "
            f"{1e3 * np.mean(one.first):.1f} | {1e3 * np.mean(many.first):.1f} | "
            f"{one.mib:.0f} | {many.mib:.0f} | {many.mib / one.mib:.2f} |"
        )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--length", type=int, help="take the windows nearest to this many tokens, instead of any")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        kind, *numbers = arguments.only
        serve(arguments, kind, *map(int, numbers))
        return
    found: dict[tuple[str, int, int], tuple[Kind, Kind]] = {}
    started: list[Kind] = []
    try:
        for kind, multiple, kept_multiple in KINDS:
            started += [Kind(kind, multiple, kept_multiple, count) for count in COUNTS]
            found[kind, multiple, kept_multiple] = (started[-2], started[-1])
        for number in range(arguments.passes):
            for one in started[:: 1 if number % 2 else -1]:
                one.one_pass()
    finally:
        for one in started:
            one.end()
    print(f"{cpu.name()}, {arguments.threads} threads, {arguments.windows} windows, OpenVINO {ov.__version__}")
    print("| Graphs | Multiples | ms | time, x | `full`, x | first pass ms, 1 | 8 | MiB, 1 | MiB, 8 | x |")
    print("| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    print(*rows(found), sep="\n")
    if arguments.json:
        raw = {
            f"{kind} {multiple} {kept_multiple} {one.configs}": {"first": one.first, "later": one.later, "MiB": one.mib}
            for (kind, multiple, kept_multiple), pair in found.items()
            for one in pair
        }
        arguments.json.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
