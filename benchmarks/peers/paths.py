"""Each path of the kernels that this CPU has, on the questions of a file: answers, times and ratios.

    python -m benchmarks.peers.paths BUNDLE DATA.json [--onnx NAME=MODEL.onnx ...] [--masked FOLDER]

Every length configuration runs on every path (`DYNAMIC_TINYBERT_ISA`), each in a process of its own, which is stopped
while it is another one's turn (see against_peers.py). `--onnx` adds models for ONNX Runtime, as `against_peers.py
prepare` writes them. To see what ONNX Runtime does without AVX-512 and VNNI, let `mask.py FOLDER` make a copy of it
that does not find them, and give `--masked FOLDER`. This shows the effect of the instruction set alone: caches, clocks
and the number of units stay those of this CPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.tasks.question_answering.squad import read_squad

from benchmarks.common import argument_parser, random_sample, windows_of
from benchmarks.kernels.cpu_limits import measure_cpu_limits
from benchmarks.peers.measuring import Protocol, measure
from benchmarks.peers.report import COLUMNS, table
from benchmarks.peers.results import figures
from benchmarks.peers.systems import System, ours


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="questions with answers")
    parser.add_argument(
        "--paths", nargs="+", default=[isa for isa in extension_library.available_isas() if isa != "scalar"]
    )
    parser.add_argument("--configs", nargs="+", help="length configurations; by default all of the bundle")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=MODEL.onnx")
    parser.add_argument("--masked", type=Path, help="folder that mask.py wrote")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, help="number of random questions; by default all")
    parser.add_argument("--timed", type=int, default=150, help="questions of the later passes")
    parser.add_argument("--passes", type=int, default=3, help="later passes")
    parser.add_argument("--starts", type=int, default=3, help="process starts")
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    systems = [
        replace(ours(f"{name}, {isa}", bundle, name), environment={"DYNAMIC_TINYBERT_ISA": isa}, cached=False)
        for isa in arguments.paths
        for name in arguments.configs or bundle.length_configs
    ]
    environment = {}
    if arguments.masked:
        environment = {
            "LD_PRELOAD": str(arguments.masked.resolve() / "masked_cpuid.so"),
            "PYTHONPATH": str(arguments.masked.resolve()),
        }
    for named in arguments.onnx:
        name, _, model = named.partition("=")
        options = {"model": str(Path(model).resolve())}
        systems.append(
            System(f"ONNX Runtime {name}", "onnx_runtime", options, bundle.shape, int8=True, environment=environment)
        )

    examples = random_sample(read_squad(arguments.data, require_answers=True), arguments.questions)
    windows = windows_of(bundle, examples)
    protocol = Protocol(arguments.threads, min(arguments.timed, len(examples)), arguments.passes, 25, arguments.starts)
    limits = measure_cpu_limits(arguments.threads)
    measured = measure(systems, bundle, examples, windows, protocol)
    found = figures(systems, measured, systems[0].name, examples, windows, limits, protocol.block)
    about = f"{len(examples)} questions of {arguments.data.name}, {cpu.name()}, {arguments.threads} threads"
    print(f"{about}, at best {limits}")
    print(*table(found, COLUMNS, systems[0].name), sep="\n")


if __name__ == "__main__":
    main()
