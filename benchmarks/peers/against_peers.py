"""Our length configurations against PyTorch, optimum-intel and ONNX Runtime, on the questions of a file.

    python -m benchmarks.peers.against_peers prepare CHECKPOINT FOLDER --calibration-data SQUAD.json
    python -m benchmarks.peers.against_peers measure CHECKPOINT BUNDLE DATA.json --prepared FOLDER --json RESULT.json

`prepare` writes the peers' model files, once. `measure` runs each system in a process of its own, which is stopped
while it is another system's turn. All get the same windows, answers are decoded by the same code, and only the call of
the model is timed, from NumPy arrays to NumPy arrays, batch 1. It prints a table, and writes raw samples and a plot
beside them. It needs pip install 'dynamic-tinybert[benchmarks]' and a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.files import CONFIG, TOKENIZER
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, random_sample, versions, windows_of
from benchmarks.kernels.cpu_limits import measure_cpu_limits
from benchmarks.peers.measuring import Measurement, Protocol, measure
from benchmarks.peers.report import COLUMNS, decomposition, draw, table
from benchmarks.peers.results import figures
from benchmarks.peers.systems import ours, peers

PACKAGES = ("torch", "transformers", "optimum-intel", "nncf", "onnxruntime", "onnx")
PEERS = ("pytorch", "optimum_intel", "onnx_runtime")
PREPARED_PEERS = PEERS[1:]  # have model files of their own
REFERENCE, FP32, FP32_PADDED = "ours full", "ours full FP32", "ours full FP32, padded"
RECORD = "prepared.json"


def main() -> None:
    parser = argument_parser(__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare", help="write the peers' model files")
    command.set_defaults(run=prepare)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("folder", type=Path)
    command.add_argument("--calibration-data", type=Path, required=True, help="as was given to `export`")
    command.add_argument("--validation-data", type=Path, help="as was given to `export`")
    command.add_argument("--num-samples", type=int, default=128, help="windows to calibrate with")
    add_peers(command)
    command = commands.add_parser("measure", help="measure all systems")
    command.set_defaults(run=run)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("bundle", type=Path, help="measured at each of its length configurations")
    command.add_argument("data", type=Path, help="SQuAD v1.1 JSON with answers")
    command.add_argument("--prepared", type=Path, required=True, help="the folder of `prepare`")
    command.add_argument("--json", type=Path, required=True, help="file to write; the plot is written beside it")
    command.add_argument(
        "--also", action="append", default=[], metavar="NAME=BUNDLE@CONFIG", help="further bundles of ours"
    )
    command.add_argument("--fp32-bundle", type=Path, help="to show what unpadding, INT8 and dropping each gain")
    add_peers(command)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--questions", type=int, help="number of random questions; by default all")
    command.add_argument("--timed", type=int, default=300, help="questions of the later passes")
    command.add_argument("--passes", type=int, default=3, help="later passes")
    command.add_argument("--block", type=int, default=25, help="questions per turn")
    command.add_argument("--starts", type=int, default=5, help="process starts of each kind")
    command.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no stopped worker is left behind
    arguments.run(arguments)


def add_peers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="by default all")


def prepare(arguments: argparse.Namespace) -> None:
    from dynamic_tinybert.export.tasks.question_answering.samples import read_samples

    checkpoint, folder = arguments.checkpoint, arguments.folder
    record = {
        "checkpoint": str(checkpoint.resolve()),
        "calibration_data": str(arguments.calibration_data.resolve()),
        "validation_data": str(arguments.validation_data and arguments.validation_data.resolve()),
        "num_samples": arguments.num_samples,
        "peers": list(arguments.peers),
        "versions": versions(*PACKAGES),
    }
    if (folder / RECORD).exists() and json.loads((folder / RECORD).read_text()) == record:
        print(f"{folder} is up to date")
        return
    folder.mkdir(parents=True, exist_ok=True)
    max_length = json.loads((checkpoint / CONFIG).read_text())["max_position_embeddings"]
    samples = read_samples(
        checkpoint / TOKENIZER, arguments.calibration_data, arguments.validation_data, arguments.num_samples, max_length
    )
    for peer in PREPARED_PEERS:
        if peer in arguments.peers:
            import_module(f"benchmarks.peers.{peer}").prepare(checkpoint, list(samples.calibration), folder)
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def run(arguments: argparse.Namespace) -> None:
    bundle = open_bundle(arguments.bundle)
    window, _ = window_size(bundle.max_length)
    own = [ours(f"ours {name}", bundle, name) for name in bundle.length_configs]
    systems = own.copy()
    for also in arguments.also:
        name, _, place = also.partition("=")
        folder, _, config = place.partition("@")
        systems.append(ours(name, open_bundle(folder), config))
    if arguments.fp32_bundle:
        fp32 = open_bundle(arguments.fp32_bundle)
        systems += [ours(FP32, fp32, "full"), ours(FP32_PADDED, fp32, "full", pad_to=window)]
    of_peers = peers(arguments.checkpoint, bundle.shape, arguments.prepared, window)
    systems += [system for system in of_peers if system.loader in arguments.peers]

    examples = read_squad(arguments.data, require_answers=True)
    examples = random_sample(examples, arguments.questions, arguments.seed)
    timed = min(arguments.timed, len(examples))
    windows = windows_of(bundle, examples)
    protocol = Protocol(arguments.threads, timed, arguments.passes, arguments.block, arguments.starts)
    limits = measure_cpu_limits(arguments.threads)
    measured = measure(systems, bundle, examples, windows, protocol)
    found = figures(systems, measured, REFERENCE, examples, windows, limits, arguments.block)

    title = f"{len(examples)} questions of {arguments.data.name}, {cpu.name()}, {arguments.threads} threads"
    print(f"{title}, at best {limits}; {arguments.passes} later passes over {timed} questions; {versions(*PACKAGES)}")
    print(*table(found, COLUMNS, REFERENCE), sep="\n")
    if arguments.fp32_bundle:
        print(*(decomposition(found, FP32_PADDED, FP32, REFERENCE, system.name) for system in own), sep="\n")
    result = {
        "machine": {
            "cpu": cpu.name(),
            "system": platform.platform(),
            "limits": asdict(limits),
            "versions": versions(*PACKAGES),
        },
        "prepared": json.loads((arguments.prepared / RECORD).read_text()),
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name != "run"},
        "questions": [example.id for example in examples],
        "systems": [asdict(system) for system in systems],
        "figures": {name: asdict(of_system) for name, of_system in found.items()},
        "measured": {name: in_microseconds(result) for name, result in measured.items()},
    }
    arguments.json.write_text(json.dumps(result))
    draw(
        {name: (of_system.p50_ms, of_system.f1) for name, of_system in found.items() if of_system.f1 is not None},
        [system.name for system in own],
        title,
        arguments.json.with_suffix(".svg"),
        score="F1",
        time="p50 of a question, ms (the model's calls alone)",
    )


def in_microseconds(result: Measurement) -> dict[str, object]:
    def convert(seconds: list[float]) -> list[int]:
        return [round(1e6 * second) for second in seconds]

    return {
        "first_visit": convert(result.first_visit),
        "later": [convert(of_pass) for of_pass in result.later],
        "cold_start": convert(result.cold_start),
        "warm_start": convert(result.warm_start or []),
        "answers": result.answers,
        "resident_bytes": result.resident_bytes,
    }


if __name__ == "__main__":
    main()
