"""Do saved multiply-accumulates save time? A bundle at its length configurations, and its graph in stock OpenVINO.

    python -m benchmarks.latency.efficiency DATA.json BUNDLE [BUNDLE ...] [--lengths 64 128 171 256 384] [--json FILE]

For each bundle, over random questions of DATA and over windows near each of the lengths, it prints the time of the
model's call and the executed multiply-accumulates (MACs) of three kinds of systems: the bundle's own graph called
through OpenVINO alone (stock), `full`, and every other length configuration. Efficiency is (time of full / time) /
(MACs of full / MACs); at 1, time falls as MACs do. Each system runs in a process of its own. Systems take turns in
blocks of questions, each of which begins with questions that are not timed; every length is run once before anything is
timed. Ratios are those of sums over all passes, with 95 % intervals from resampling the blocks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.windows import Window

from benchmarks.common import argument_parser, random_sample, versions, windows_of
from benchmarks.peers.measuring import system_process
from benchmarks.peers.systems import System, ours

BLOCK, WARM_UP = 8, 2
Seconds = npt.NDArray[np.float64]  # [passes, windows]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 128, 171, 256, 384])
    parser.add_argument("--windows", type=int, default=96, help="windows of each set")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="raw seconds of each system and window")
    arguments = parser.parse_args()
    print(f"{cpu.name()}, {arguments.threads} threads, {arguments.data.name}, {versions()}")
    print("| Bundle | Windows | System | MACs, x fewer | ms | time / stock | x faster than full | efficiency |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    raw = {}
    for folder in arguments.bundles:
        bundle = open_bundle(folder)
        for name, windows in window_sets(bundle, arguments.data, arguments.lengths, arguments.windows).items():
            systems = [stock(bundle), *(ours(config, bundle, config) for config in bundle.length_configs)]
            seconds = time(systems, windows, arguments.threads, arguments.passes)
            macs = {config: executed_macs(bundle, config, windows) for config in bundle.length_configs}
            for row in rows(seconds, macs):
                print(f"| {bundle.path.name} | {name} | {' | '.join(row)} |", flush=True)
            raw[f"{folder} {name}"] = {system: own.tolist() for system, own in seconds.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpu": cpu.name(), "versions": versions(), "seconds": raw}))


def stock(bundle: Bundle) -> System:
    options = {"model": str(bundle.model_xml), "precision": cpu.best_float_precision()}
    return System("stock", "openvino_ir", options, bundle.shape)


def window_sets(bundle: Bundle, data: Path, lengths: Sequence[int], count: int) -> dict[str, list[Window]]:
    """Random windows, and for each length the windows nearest to it."""
    windows = random_sample(list(chain.from_iterable(windows_of(bundle, read_squad(data)))))
    sets = {"real lengths": windows[:count]}
    for length in lengths:
        sets[f"{length} tokens"] = sorted(windows, key=lambda window: abs(len(window) - length))[: count // 4]
    return sets


def time(systems: Sequence[System], windows: Sequence[Window], threads: int, passes: int) -> dict[str, Seconds]:
    seconds = {system.name: np.empty((passes, len(windows))) for system in systems}
    as_json = [[{"ids": window.encoding.ids, "context": window.context.start}] for window in windows]
    with ExitStack() as stack:
        processes = {system.name: stack.enter_context(system_process(system, threads)) for system in systems}
        for process in processes.values():
            process.ask(run=as_json, pad_to=0, outputs=False)  # prepares the kernels of each length
        for number in range(passes):
            for start in range(0, len(windows), BLOCK):
                block = slice(start, start + BLOCK)
                warm_up = slice(start, start + WARM_UP)
                for name in list(processes)[:: 1 if (start // BLOCK + number) % 2 else -1]:
                    processes[name].ask(run=as_json[warm_up], pad_to=0, outputs=False)
                    reply = processes[name].ask(run=as_json[block], pad_to=0, outputs=False)
                    seconds[name][number, block] = reply["seconds"]
    return seconds


def executed_macs(bundle: Bundle, config: str, windows: Sequence[Window]) -> int:
    model = LengthAdaptiveModel(bundle, max_compiled=1)
    (outputs,) = run_windows(model, [windows], length_config=config, batch_size=1)
    layers = bundle.shape.num_layers
    return sum(
        model.executed_macs(config, len(window), output.kept_by_layer(len(window), layers))
        for window, output in zip(windows, outputs, strict=True)
    )


def rows(seconds: dict[str, Seconds], macs: dict[str, int]) -> list[tuple[str, ...]]:
    full = seconds["full"]
    found: list[tuple[str, ...]] = [("stock", "", f"{1e3 * np.median(seconds['stock']):.2f}", "1", "", "")]
    for name, own in seconds.items():
        if name == "stock":
            continue
        fewer = macs["full"] / macs[name]
        faster = ratio(full, own)
        found.append(
            (
                name,
                f"{fewer:.2f}",
                f"{1e3 * np.median(own):.2f}",
                interval(ratio(own, seconds["stock"])),
                "" if name == "full" else interval(faster),
                "" if name == "full" else interval([value / fewer for value in faster]),
            )
        )
    return found


def ratio(a: Seconds, b: Seconds) -> list[float]:
    """Sum of `a` over that of `b`, and the ends of its 95 % interval."""
    starts = np.arange(0, a.shape[1], BLOCK)
    sums_a, sums_b = (np.add.reduceat(x, starts, axis=1).ravel() for x in (a, b))
    chosen = np.random.default_rng(0).integers(len(sums_a), size=(2000, len(sums_a)))
    low, high = np.percentile(sums_a[chosen].sum(1) / sums_b[chosen].sum(1), (2.5, 97.5))
    return [float(sums_a.sum() / sums_b.sum()), float(low), float(high)]


def interval(values: Sequence[float]) -> str:
    value, low, high = values
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
