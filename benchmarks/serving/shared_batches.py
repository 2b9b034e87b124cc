"""Whether requests should share a batch: windows per second of several rows in one call, against one call for each.

    python -m benchmarks.serving.shared_batches [BUNDLE] [--passes 30] [--threads 2]

For each length and number of rows, in random order of all ways: one call for each row; one call of the specialised
graph for all; one call of the elastic graph, whose rows take the bundle's length configurations in turn, against one
call of a specialised graph for each of them. Printed is the speed of one call for all, 1.00 being as fast as one call
for each, from the shortest of the times of each way, which other load on the machine affects least.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from time import perf_counter

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.tasks.question_answering.sample_windows import sample_windows
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window

from benchmarks.common import argument_parser, versions


def one_for_each(model: LengthAdaptiveModel, windows: Sequence[Window], names: Sequence[str]) -> None:
    """Run each window in a call of its own, at the length configuration of the same place."""
    for window, name in zip(windows, names, strict=True):
        model(**stack([window]), length_config=name)


def one_for_all(model: LengthAdaptiveModel, windows: Sequence[Window], names: Sequence[str]) -> None:
    """Run all windows in one call; in the elastic graph if their length configurations differ."""
    if len(set(names)) == 1:
        model(**stack(windows), length_config=names[0])
    else:
        model(**stack(windows), length_configs=names)


def main() -> None:
    """Measure all lengths, numbers of rows and configurations, and print a table."""
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", nargs="?", help="the embedded bundle by default")
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 4, 8])
    arguments = parser.parse_args()
    model = LengthAdaptiveModel.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    windowing = Windowing.of(model)
    names = list(model.length_configs)
    kinds = {"full": ["full"], names[-1]: names[-1:], "mixed": names}
    print(f"{cpu.name()}, {model.execution}, {versions()}\n")
    print("| Tokens | Rows | " + " | ".join(kinds) + " |\n| ---: | ---: |" + " ---: |" * len(kinds))
    for length in arguments.lengths:
        samples = sample_windows(windowing, length)
        for rows in arguments.rows:
            windows = list(islice(cycle(samples), rows))
            ways: list[tuple[str, Callable[[], None]]] = []
            for kind, own in kinds.items():
                configs = list(islice(cycle(own), rows))
                ways += [(kind, partial(run, model, windows, configs)) for run in (one_for_each, one_for_all)]
            seconds = [float("inf")] * len(ways)
            for turn in range(arguments.passes + 1):
                for number in random.sample(range(len(ways)), len(ways)):
                    start = perf_counter()
                    ways[number][1]()
                    if turn:  # the first one compiles
                        seconds[number] = min(seconds[number], perf_counter() - start)
            speeds = [each / together for each, together in zip(seconds[::2], seconds[1::2], strict=True)]
            print(f"| {length} | {rows} | " + " | ".join(f"{speed:.2f}" for speed in speeds) + " |", flush=True)


if __name__ == "__main__":
    main()
