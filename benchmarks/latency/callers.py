"""Throughput of one model object that is called by 1, 2 and 8 threads, and of batches.

    python -m benchmarks.latency.callers BUNDLE DATA.json [--length-config NAME]

Every call has one window of DATA. All windows are run with each number of callers, in random order, with OpenVINO's
settings for latency (one stream) and for throughput. Logits must equal those of a single caller. Then the same windows
are sorted by length and run in batches of 8, as `evaluate` does.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import openvino as ov

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput

from benchmarks.common import argument_parser, first_windows_of, random_sample

CALLERS = (1, 2, 8)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--length-config", default="full")
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    config = arguments.length_config
    print(
        f"{cpu.name()}, {arguments.threads} threads, {arguments.windows} windows, {config}, OpenVINO {ov.__version__}"
    )
    print("| Hint | Callers | windows/s | x one caller |")
    print("| --- | --- | ---: | ---: |")
    for hint in ("LATENCY", "THROUGHPUT"):
        model = LengthAdaptiveModel.from_pretrained(
            arguments.bundle, num_threads=arguments.threads, performance_hint=hint
        )
        windows = first_windows_of(model.bundle, random_sample(read_squad(arguments.data), arguments.windows))
        inputs = [stack([window]) for window in windows]

        def answer(i: int) -> bytes:
            output: QuestionAnsweringOutput = model(**inputs[i], length_config=config)  # noqa: B023 - called before the next model is made
            return output.start_logits.tobytes() + output.end_logits.tobytes()

        expected = [answer(i) for i in range(len(inputs))]
        for _ in range(max(CALLERS)):  # each request of the pool prepares its own kernels
            with ThreadPoolExecutor(max(CALLERS)) as pool:
                list(pool.map(answer, range(len(inputs))))
        seconds: dict[str, list[float]] = {name: [] for name in (*(f"{n} threads" for n in CALLERS), "batches of 8")}
        generator = np.random.default_rng(0)
        for _ in range(arguments.passes):
            for n in generator.permutation(CALLERS):
                with ThreadPoolExecutor(n) as pool:
                    started = perf_counter()
                    found = list(pool.map(answer, range(len(inputs))))
                    seconds[f"{n} threads"].append(perf_counter() - started)
                if found != expected:
                    raise SystemExit(f"{n} threads gave other logits than one thread")
            started = perf_counter()
            run_windows(model, [windows], length_config=config, batch_size=8)
            seconds["batches of 8"].append(perf_counter() - started)
        one = np.array(seconds["1 threads"])
        for name, own in seconds.items():
            rate, ratio = len(windows) / np.median(own), np.median(one / np.array(own))
            print(f"| {hint} | {name} | {rate:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
