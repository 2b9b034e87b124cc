"""Time and memory of the kinds of graph that can serve several length configurations at mixed lengths.

    python benchmarks/graph_kinds.py BUNDLE DATA.json [--json FILE]

static: a graph for each configuration and each padded length; dynamic: a graph for each configuration; elastic: one
graph that has the configuration as inputs. With lengths padded to a multiple of 16, 8 or 1, for one and for eight
configurations (the bundle's, and some between them), in a process of its own, one after the other: a first pass over
random windows of DATA, in which graphs are compiled and kernels prepared, then passes that are timed. Memory is what
the process holds beyond what it held before its first graph.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino as ov

from dynamic_tinybert.runtime import LengthConfig, cpu, ops
from dynamic_tinybert.runtime.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.graph import bounds, with_selection
from dynamic_tinybert.runtime.inference import stack_windows
from dynamic_tinybert.runtime.scorer import load_scorers
from dynamic_tinybert.runtime.squad import read_squad

from peers.measuring import windows_of

KINDS = [(kind, multiple) for kind in ("dynamic", "elastic") for multiple in (16, 8, 1)]
KINDS.append(("static", 16))  # OpenVINO 2026.4.1 crashes in a static Gather of fewer than 16 of a sequence's tokens
COUNTS = (1, 8)
Arrays = dict[str, np.ndarray]


def configurations(bundle: Bundle, count: int) -> list[LengthConfig]:
    """The bundle's, and with them more whose thresholds are multiples of theirs."""
    found = [named.config for named in bundle.length_configs.values()][:count]
    selecting = [config for config in found if config.selecting_layers]
    for factor in (0.8, 1.2, 0.9, 1.1):
        for config in selecting:
            thresholds = tuple(None if t is None else factor * t for t in config.thresholds)
            found.append(LengthConfig(config.keep_ratios, thresholds))
    return found[:count]


def graphs(bundle: Bundle, kind: str, multiple: int, threads: int) -> Callable[[LengthConfig, int], ov.InferRequest]:
    """A function that gives a request for a configuration and a padded length."""
    core, plain = ops.core(), ops.core().read_model(bundle.model_xml)
    scorers = load_scorers(bundle.scorers) if bundle.scorers else None
    properties = {
        "INFERENCE_PRECISION_HINT": cpu.best_float_precision(),
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    made: dict[object, ov.InferRequest] = {}

    def request(config: LengthConfig, length: int) -> ov.InferRequest:
        key = {"static": (config, length), "dynamic": config, "elastic": None}[kind]
        if key not in made:
            model = plain
            if kind == "static":
                model = plain.clone()
                model.reshape({given.get_any_name(): [1, length] for given in model.inputs})
            graph = with_selection(
                model,
                None if kind == "elastic" else config,
                num_layers=bundle.shape.num_layers,
                num_heads=bundle.num_attention_heads,
                scorers=scorers,
                multiple=multiple,
                int16_attention=bundle.quantization["precision"] == "int8" and ops.int16_attention(),
            )
            made[key] = core.compile_model(graph, "CPU", properties).create_infer_request()
        return made[key]

    return request


def padded(arrays: Arrays, multiple: int, longest: int) -> Arrays:
    length = arrays["input_ids"].shape[1]
    more = min(-(-length // multiple) * multiple, longest) - length
    return {name: np.pad(array, ((0, 0), (0, more))) for name, array in arrays.items()}


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(arguments: argparse.Namespace, kind: str, multiple: int, count: int) -> dict[str, float]:
    bundle = open_bundle(arguments.bundle)
    examples = read_squad(arguments.data)
    chosen = [examples[i] for i in np.random.default_rng(0).permutation(len(examples))[: arguments.windows]]
    windows = [own[0] for own in windows_of(bundle.tokenizer_json, chosen)]
    inputs = [padded(dict(stack_windows([window])), multiple, bundle.max_length) for window in windows]
    configs = configurations(bundle, count)
    before = resident_mib()
    request_of = graphs(bundle, kind, multiple, arguments.threads)

    def one_pass() -> list[float]:
        seconds = []
        for arrays in inputs:
            for config in configs:
                given = arrays | (bounds(config) if kind == "elastic" else {})
                started = perf_counter()
                request_of(config, arrays["input_ids"].shape[1]).infer(given, share_inputs=True)
                seconds.append(perf_counter() - started)
        return seconds

    first = one_pass()
    later = np.array([one_pass() for _ in range(arguments.passes)])
    full = slice(0, None, len(configs))  # `full` comes first for each window
    return {
        "ms": 1e3 * float(np.median(later, axis=0).mean()),
        "full ms": 1e3 * float(np.median(later, axis=0)[full].mean()),
        "first ms": 1e3 * float(np.mean(first)),
        "MiB": resident_mib() - before,
    }


def rows(found: dict[tuple[str, int, int], dict[str, float]]) -> Sequence[str]:
    most = max(COUNTS)
    base = found[*KINDS[0], most]
    return [
        f"| {kind} | {multiple} | {many['ms']:.2f} | {many['ms'] / base['ms']:.2f} | {many['full ms']:.2f} | "
        f"{many['first ms']:.1f} | {one['MiB']:.0f} | {many['MiB']:.0f} | {many['MiB'] / one['MiB']:.2f} |"
        for kind, multiple in KINDS
        for one, many in [[found[kind, multiple, count] for count in COUNTS]]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        kind, multiple, count = arguments.only
        print(json.dumps(measure(arguments, kind, int(multiple), int(count))))
        return
    found = {}
    for count in COUNTS:
        for kind, multiple in KINDS:
            command = [sys.executable, *sys.argv, "--only", kind, str(multiple), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind, multiple, count] = json.loads(done.stdout)
    print(f"{cpu.name()}, {arguments.threads} threads, {arguments.windows} windows, OpenVINO {ov.__version__}")
    print("| Graphs | Multiple | ms, 8 configurations | x | `full` ms | first pass ms | MiB, 1 | MiB, 8 | x |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(*rows(found), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({" ".join(map(str, key)): value for key, value in found.items()}))


if __name__ == "__main__":
    main()
