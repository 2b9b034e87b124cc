"""Times of the C++ ops, alone and together, compared with stock OpenVINO's attention and a copy of the kept rows.

    python -m benchmarks.kernels.ops [--quick] [--threads N] [--json FILE] [--plot FILE.svg]

The variants of a shape (op_graphs.py) are compiled, checked against their references and warmed up; then they take
turns in random order, in short blocks. Every request runs twice and the second is timed, so that its own weights are
in the caches. Ratios are those of the medians of neighbouring blocks: their median and its 95 % bootstrap interval. For
selections and copies, the time of the same graph with one token ("empty") is subtracted first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import opset13

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.encoder import extension_library

from benchmarks.common import argument_parser, latency_properties, versions
from benchmarks.kernels.op_graphs import HEADS, Variant, variants

SHAPES = [(tokens, width) for width in (384, 768) for tokens in (64, 128, 171, 256, 384)]
QUICK = [(171, 384), (384, 768)]
KEEP_RATIOS = (1.0, 0.5)

Samples = Mapping[str, npt.NDArray[np.float64]]  # microseconds by variant, [blocks, requests]


def prepare(variant: Variant, threads: int) -> ov.InferRequest:
    parameters = [opset13.parameter(array.shape, array.dtype) for array in variant.inputs]
    outputs = variant.build(*(parameter.output(0) for parameter in parameters))
    model = ov.Model([opset13.result(output) for output in outputs], parameters)
    compiled = extension_library.core().compile_model(model, "CPU", latency_properties(threads, "f32"))
    request = compiled.create_infer_request()
    for k, array in enumerate(variant.inputs):
        request.set_input_tensor(k, ov.Tensor(np.ascontiguousarray(array)))
    return request


def run(request: ov.InferRequest) -> None:
    request.start_async()
    request.wait()


def check(name: str, variant: Variant, request: ov.InferRequest) -> None:
    run(request)
    for k, expected in enumerate(variant.expected):
        actual = request.get_output_tensor(k).data
        np.testing.assert_allclose(actual, expected, rtol=0, atol=variant.tolerance, err_msg=f"{name}, output {k}")


def timed(request: ov.InferRequest) -> float:
    run(request)
    start = perf_counter()
    run(request)
    return 1e6 * (perf_counter() - start)


def measure(table: Mapping[str, Variant], threads: int, blocks: int, requests: int) -> Samples:
    prepared = {name: prepare(variant, threads) for name, variant in table.items()}
    for name, request in prepared.items():
        check(name, table[name], request)
        for _ in range(20):  # warm-up
            run(request)
    generator = np.random.default_rng(0)
    samples: dict[str, list[list[float]]] = {name: [] for name in prepared}
    for _ in range(blocks):
        for name in generator.permutation(list(prepared)):
            samples[name].append([timed(prepared[name]) for _ in range(requests)])
    return {name: np.array(times) for name, times in samples.items()}


def ratio_to_base(name: str, table: Mapping[str, Variant], samples: Samples) -> tuple[float, float, float]:
    def block_medians(name: str) -> npt.NDArray[np.float64]:
        overhead = table[name].overhead
        own: npt.NDArray[np.float64] = np.median(samples[name], axis=1)
        return own if overhead is None else own - np.median(samples[overhead], axis=1)

    ratios = block_medians(name) / block_medians(table[name].base)
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5))
    return float(np.median(ratios)), low, high


def report(table: Mapping[str, Variant], samples: Samples) -> None:
    print(f"{'variant':36}{'median µs':>10}{'p95 µs':>9}{'GFLOP/s':>9}   ratio to its base")
    for name, variant in table.items():
        p50, p95 = np.percentile(samples[name], (50, 95))
        speed = f"{variant.flops / p50 / 1000:9.0f}" if variant.flops else " " * 9
        ratio, low, high = ratio_to_base(name, table, samples)
        print(f"{name:36}{p50:10.1f}{p95:9.1f}{speed}   {ratio:.3f} [{low:.3f}, {high:.3f}] {variant.base}")


def plot(measured: Mapping[tuple[int, int], Samples], file: Path) -> None:
    """Median time over tokens: a column for each width; rows for attention, scorers and selection."""
    from matplotlib.figure import Figure

    widths = sorted({width for _, width in measured})
    rows = (("attention",), ("scorer",), ("select", "copy", "empty"))
    figure = Figure(figsize=(6.5 * len(widths), 13), layout="constrained")
    grid = figure.subplots(len(rows), len(widths), squeeze=False)
    for (row, kinds), (column, width) in product(enumerate(rows), enumerate(widths)):
        axes = grid[row, column]
        by_tokens = {tokens: samples for (tokens, w), samples in measured.items() if w == width}
        for name in next(iter(by_tokens.values())):
            if name.startswith(kinds):
                medians = [np.median(samples[name]) for samples in by_tokens.values()]
                axes.plot(list(by_tokens), medians, "o--" if "stock" in name else "o-", markersize=3, label=name)
        axes.set(title=f"{width} wide", xlabel="tokens", ylabel="µs", yscale="log", xticks=list(by_tokens))
        axes.legend(fontsize="x-small")
    figure.savefig(file)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--requests", type=int, default=5, help="requests of each variant in a block")
    parser.add_argument("--quick", action="store_true", help="two shapes only")
    parser.add_argument("--json", type=Path, help="raw samples, in microseconds")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # it only computes a reference; its threads must not disturb
    machine = {
        "cpu": cpu.name(),
        "isa": extension_library.isa(),
        "threads": arguments.threads,
        "versions": versions("numpy"),
    }
    print(f"{machine['cpu']}, our ops by {machine['isa']}, {arguments.threads} threads, {machine['versions']}")
    measured: dict[tuple[int, int], Samples] = {}
    for tokens, width in QUICK if arguments.quick else SHAPES:
        table = variants(tokens, width, KEEP_RATIOS)
        measured[tokens, width] = measure(table, arguments.threads, arguments.blocks, arguments.requests)
        print(f"\n{tokens} tokens, {width} wide, {HEADS} heads")
        report(table, measured[tokens, width])
    if arguments.json:
        shapes = [
            {
                "tokens": tokens,
                "width": width,
                "microseconds": {name: times.tolist() for name, times in samples.items()},
            }
            for (tokens, width), samples in measured.items()
        ]
        arguments.json.write_text(json.dumps({"machine": machine, "shapes": shapes}))
    if arguments.plot:
        plot(measured, arguments.plot)


if __name__ == "__main__":
    main()
