"""Time of one request of several systems, interleaved, each in a process of its own.

    python benchmarks/latency.py --length 384 \\
        fp32=bundle:FOLDER int8=bundle:FOLDER@CONFIG stock=ir:openvino_model.xml

A system is a bundle, called as the runtime's users call it, or any OpenVINO IR with BERT's inputs, called
through OpenVINO. All run in f32 beside INT8 with the same threads and the same random tokens. Medians of all
requests, and ratios to the first system: median of the ratios of neighbouring blocks, with their 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np

from dynamic_tinybert.runtime import cpu

Request = Callable[[], object]


def system(kind: str, place: str, length: int, threads: int) -> Request:
    generator = np.random.default_rng(0)
    columns = np.arange(length)
    inputs = {
        "input_ids": generator.integers(1000, 30000, (1, length)),
        "attention_mask": np.ones((1, length), np.int64),
        "token_type_ids": (columns >= length // 8).astype(np.int64)[None],
    }
    if kind == "bundle":
        from dynamic_tinybert.runtime import LengthAdaptiveModel

        folder, _, config = place.partition("@")
        model = LengthAdaptiveModel.from_pretrained(folder, num_threads=threads, precision="f32")
        return lambda: model(**inputs, length_config=config or "full")
    import openvino as ov

    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(place, "CPU", properties)
    request = compiled.create_infer_request()
    wanted = {name: inputs[name] for name in (i.get_any_name() for i in compiled.inputs)}
    return lambda: request.infer(wanted, share_inputs=True)


def serve(kind: str, place: str, length: int, threads: int) -> None:
    """Answer each number on standard input with the times of so many requests."""
    request = system(kind, place, length, threads)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = perf_counter()
            request()
            times.append(perf_counter() - start)
        print(json.dumps(times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", metavar="NAME=KIND:PLACE")
    parser.add_argument("--length", type=int, default=384, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--requests", type=int, default=10, help="in each block")
    parser.add_argument("--json", type=Path, help="raw samples, in microseconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    systems = {name: place.partition(":")[::2] for name, _, place in (s.partition("=") for s in arguments.systems)}
    if arguments.serve:
        ((kind, place),) = systems.values()
        serve(kind, place, arguments.length, arguments.threads)
        return

    workers = {}
    for name, (kind, place) in systems.items():
        command = [sys.executable, __file__, f"{name}={kind}:{place}", "--serve"]
        command += ["--length", str(arguments.length), "--threads", str(arguments.threads)]
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def block(name: str, requests: int) -> list[float]:
        worker = workers[name]
        assert worker.stdin
        assert worker.stdout
        print(requests, file=worker.stdin, flush=True)
        return [1e6 * seconds for seconds in json.loads(worker.stdout.readline())]

    for name in systems:
        block(name, 20)  # warm-up
    samples: dict[str, list[list[float]]] = {name: [] for name in systems}
    for turn in range(arguments.blocks):
        order = list(systems) if turn % 2 == 0 else list(systems)[::-1]
        for name in order:
            block(name, 2)  # back into the caches
            samples[name].append(block(name, arguments.requests))
    for worker in workers.values():
        worker.terminate()

    machine = {
        "cpu": cpu.name(),
        "threads": arguments.threads, "length": arguments.length,
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino", "numpy")},
    }  # fmt: skip
    print(f"{machine['cpu']}, {arguments.threads} threads, {arguments.length} tokens, {machine['versions']}")
    print(f"{'system':16}{'median ms':>10}{'p95 ms':>9}   ratio to {next(iter(systems))}")
    first = np.median(next(iter(samples.values())), axis=1)
    for name, blocks in samples.items():
        ratios = np.median(blocks, axis=1) / first
        resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5))
        p50, p95 = np.percentile(blocks, (50, 95)) / 1000
        print(f"{name:16}{p50:10.2f}{p95:9.2f}   {np.median(ratios):.3f} [{low:.3f}, {high:.3f}]")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "systems": systems, "microseconds": samples}))


if __name__ == "__main__":
    main()
