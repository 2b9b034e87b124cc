"""Rates of our 8-bit matrix products with each instruction set of this CPU, on one thread, and the CPU's limits.

    python -m benchmarks.kernels.products [--rounds 200]

A C++ compiler is needed: products.cpp and the kernels are compiled on the spot, without OpenVINO. A rate is that of the
fastest of many short runs, in which the instruction sets take turns, so that other load on the machine has little
effect. For comparison: AVX2 with numbers widened to 16 bits (widened.hpp), the other exact way without VNNI.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from dynamic_tinybert.runtime import cpu

from benchmarks.common import ROOT, argument_parser
from benchmarks.kernels.cpu_limits import measure_cpu_limits

SOURCES = ROOT / "runtime" / "extension"
FLAGS = ("-O3", "-std=c++20", "-march=x86-64-v2", "-ffp-contract=off")  # as in CMakeLists.txt


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        program = Path(folder, "products")
        sources = [Path(__file__).with_suffix(".cpp"), *sorted((SOURCES / "kernels").glob("*.cpp"))]
        subprocess.run(["c++", *FLAGS, f"-I{SOURCES}", *sources, "-o", program], check=True)
        measured = subprocess.run([program, str(arguments.rounds)], check=True, capture_output=True)
    limits = {isa: rate / 2 for isa, rate in measure_cpu_limits(1).int8.items()}
    print(f"{cpu.name()}, 1 thread, 10^9 multiply-accumulates a second, and of the limit")
    shapes = json.loads(measured.stdout)
    ways = list(next(iter(shapes.values())))
    print("| Rows, depth, columns | " + " | ".join(ways) + " |")
    print("| --- |" + " ---: |" * len(ways))
    print("| limit | " + " | ".join(f"{limits[limited_by(way)]:.0f}" for way in ways) + " |")
    for shape, rates in shapes.items():
        cells = (f"{rate:.0f}, {rate / limits[limited_by(way)]:.0%}" for way, rate in rates.items())
        print(f"| {shape} | {' | '.join(cells)} |")


def limited_by(way: str) -> str:
    return "avx2" if way.startswith("widened") else way


if __name__ == "__main__":
    main()
