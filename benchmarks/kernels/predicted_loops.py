"""What llvm-mca predicts for the inner loops of the 8-bit products, on CPUs that are not at hand.

    python -m benchmarks.kernels.predicted_loops

This is a prediction, not a measurement: of the core alone, with all data in the first-level cache. It
needs g++, and llvm-mca of LLVM 17 or later (Debian: llvm-19).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT, argument_parser

EXTENSION = ROOT / "runtime" / "extension"


@dataclass(frozen=True)
class Loop:
    """The loop with the most `instruction`s of a file; `peak` is the most MACs per cycle that they allow on `cpu`."""

    isa: str
    cpu: str
    instruction: str
    macs: int  # of one such instruction
    peak: float


LOOPS = (
    Loop("avx_vnni", "alderlake", "vpdpbusd", 32, 64),
    Loop("avx2", "skylake", "vpmaddubsw", 32, 32),
    Loop("avx2", "haswell", "vpmaddubsw", 32, 16),
    Loop("avx512_vnni", "cascadelake", "vpdpbusd", 64, 128),
)


def assembly(isa: str) -> list[str]:
    """The assembly of a file of kernels, compiled as the extension is, by lines."""
    options: list[str | Path] = [
        "-std=c++20",
        "-O3",
        "-DNDEBUG",
        "-march=x86-64-v2",
        "-ffp-contract=off",
        "-fPIC",
        "-I",
        EXTENSION,
    ]
    command: list[str | Path] = ["g++", *options, "-S", "-o", "-", EXTENSION / "kernels" / f"{isa}.cpp"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def innermost_loops(lines: list[str]) -> list[list[str]]:
    """Instructions between a label and a jump back to it, with no other label between them."""
    loops = []
    label, begin = "", 0
    for at, line in enumerate(lines):
        if match := re.match(r"(\.L\w+):", line):
            label, begin = match[1], at + 1
        elif re.match(rf"\s+j\w+\s+{re.escape(label)}\s*$", line) and label:
            loops.append([text for text in lines[begin : at + 1] if re.match(r"\s+[^.\s#]", text)])
    return loops


def cycles(loop: list[str], cpu: str, mca: str) -> float:
    """Predicted cycles of one iteration, averaged over many."""
    turns = 1000
    command = [mca, f"-mcpu={cpu}", f"-iterations={turns}", "-instruction-info=false", "-resource-pressure=false"]
    done = subprocess.run(command, input="\n".join(loop), check=True, capture_output=True, text=True)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total, done.stdout
    return int(total[1]) / turns


def main() -> None:
    argument_parser(__doc__).parse_args()
    names = ["llvm-mca", *(f"llvm-mca-{version}" for version in range(22, 16, -1))]
    mca = next(filter(None, map(shutil.which, reversed(names))), None)
    if not mca:
        sys.exit("llvm-mca was not found; in Debian it is part of llvm-19")
    version = subprocess.run([mca, "--version"], check=True, capture_output=True, text=True).stdout
    print(*re.findall(r"LLVM version \S+", version))
    print("Predicted, not measured: instructions, cycles per iteration, MACs per cycle, share of the core's peak")
    for loop in LOOPS:
        found = innermost_loops(assembly(loop.isa))
        inner = max(found, key=lambda lines: sum(loop.instruction in line for line in lines))
        count = sum(loop.instruction in line for line in inner)
        each = cycles(inner, loop.cpu, mca)
        rate = count * loop.macs / each
        print(f"{loop.isa} on {loop.cpu}: {len(inner)}, {each:.2f}, {rate:.1f}, {rate / loop.peak:.0%} of {loop.peak}")


if __name__ == "__main__":
    main()
