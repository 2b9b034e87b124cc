"""What a call takes with and without OpenVINO's CPU plugin.

    python -m benchmarks.latency.without_plugin DATA.json [--bundle BUNDLE] [--threads 1 2]

Both run the same joined node on windows of random questions at batch 1. The property ENABLE_CPU_PINNING makes the
plugin run it, on pinned threads if they are two or more, which is the plugin's own default. Both take turns in blocks
of windows, each of which begins with windows that are not timed; all are run once before anything is timed. Ratios are
those of sums, with 95 % intervals from resampling the blocks.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.encoder.joined_graph import JoinedGraphRequests
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, first_windows_of, measured_on, random_sample
from benchmarks.latency.efficiency import BLOCK, WARM_UP, interval, ratio


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--passes", type=int, default=5)
    arguments = parser.parse_args()
    print(measured_on())
    print("| Threads | Configuration | ms, plugin | ms, without | without / plugin |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for threads in arguments.threads:
        ways = [
            LengthAdaptiveModel.from_pretrained(arguments.bundle, num_threads=threads, ov_config=properties)
            for properties in ({"ENABLE_CPU_PINNING": True}, {"ENABLE_CPU_PINNING": False})
        ]
        windows = first_windows_of(ways[0].bundle, random_sample(read_squad(arguments.data), arguments.windows))
        inputs = [stack([window]) for window in windows]
        for config in ways[0].length_configs:
            plugin, own = time(ways, inputs, config, arguments.passes)
            milliseconds = " | ".join(f"{1e3 * np.median(seconds):.2f}" for seconds in (plugin, own))
            print(f"| {threads} | {config} | {milliseconds} | {interval(ratio(own, plugin))} |", flush=True)


def time(
    ways: list[LengthAdaptiveModel], inputs: list[dict[str, npt.NDArray[np.int64]]], config: str, passes: int
) -> list[npt.NDArray[np.float64]]:
    """Seconds of each call, [passes, windows] for each way."""
    for model in ways:
        for own in inputs:
            model(**own, length_config=config)
    kinds = [isinstance(model._graph(model.resolve(config))._current(), JoinedGraphRequests) for model in ways]
    if kinds != [False, True]:
        raise SystemExit("this bundle has no graph of one node, or this machine several NUMA nodes")
    seconds = [np.empty((passes, len(inputs))) for _ in ways]
    for number in range(passes):
        for start in range(0, len(inputs), BLOCK):
            for way in (0, 1) if (start // BLOCK + number) % 2 else (1, 0):
                for own in inputs[start : start + WARM_UP]:
                    ways[way](**own, length_config=config)
                for k, own in enumerate(inputs[start : start + BLOCK], start):
                    begun = perf_counter()
                    ways[way](**own, length_config=config)
                    seconds[way][number, k] = perf_counter() - begun
    return seconds


if __name__ == "__main__":
    main()
