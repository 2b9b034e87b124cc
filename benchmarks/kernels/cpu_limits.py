"""The limits of this CPU: the largest rates of INT8 and FP32 multiply-accumulates on N threads.

    python -m benchmarks.kernels.cpu_limits [THREADS]

A C++ compiler is needed: cpu_limits.cpp is compiled on the spot. AMX, whose limit is higher still, is not measured.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dynamic_tinybert.runtime import cpu

from benchmarks.common import argument_parser


@dataclass(frozen=True)
class CpuLimits:
    """Largest rates in 10^9 operations per second, by instruction set; a multiply-accumulate is two operations."""

    int8: dict[str, float]
    fp32: dict[str, float]

    def seconds(self, int8_macs: float, fp32_macs: float) -> float:
        """The least time, in seconds, for these numbers of multiply-accumulates."""
        return 2e-9 * (int8_macs / max(self.int8.values()) + fp32_macs / max(self.fp32.values()))

    def __str__(self) -> str:
        rates = (("INT8", "GOPS", self.int8), ("FP32", "GFLOPS", self.fp32))
        return ", ".join(f"{max(of.values()):.0f} {unit} {kind} ({max(of, key=of.get)})" for kind, unit, of in rates)


def measure_cpu_limits(threads: int) -> CpuLimits:
    source = Path(__file__).with_suffix(".cpp")
    with TemporaryDirectory() as folder:
        program = Path(folder, source.stem)
        subprocess.run(["c++", "-O2", "-std=c++17", "-pthread", source, "-o", program], check=True)
        measured = subprocess.run([program, str(threads)], check=True, capture_output=True)
    return CpuLimits(**json.loads(measured.stdout))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("threads", nargs="?", type=int, default=2)
    threads = parser.parse_args().threads
    print(f"{cpu.name()}, {threads} threads: {measure_cpu_limits(threads)}")


if __name__ == "__main__":
    main()
