"""Make a copy of the installed ONNX Runtime that finds neither AVX-512 nor VNNI, whatever the CPU has.

    python -m benchmarks.peers.mask FOLDER

In the copy each `cpuid` is replaced by `ud2`, an instruction of the same size that raises SIGILL; a library that is
loaded by LD_PRELOAD then answers in its place, without these flags (masked_cpuid.c). Needs objdump, readelf and gcc.
Use the copy with LD_PRELOAD=FOLDER/masked_cpuid.so PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from benchmarks.common import argument_parser

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        parser.error("ONNX Runtime is not installed")
    copy = folder / "onnxruntime"
    shutil.copytree(Path(found.origin).parent, copy, dirs_exist_ok=True)
    (library,) = (copy / "capi").glob("onnxruntime_pybind11_state*.so")
    print(f"{replace_cpuid(library)} places in {library}")
    source = Path(__file__).with_name("masked_cpuid.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", folder / "masked_cpuid.so", source], check=True)


def replace_cpuid(library: Path) -> int:
    """Replace every `cpuid` of a library; returns their number."""
    code = _output("objdump", "-d", str(library))
    addresses = [int(at, 16) for at in re.findall(r"^\s*([0-9a-f]+):\s+0f a2\s+\tcpuid", code, re.MULTILINE)]
    headers = _output("readelf", "-lW", str(library))
    loads = re.findall(r"^\s+LOAD\s+(0x\S+)\s+(0x\S+)\s+\S+\s+(0x\S+)", headers, re.MULTILINE)
    segments = [tuple(int(number, 16) for number in load) for load in loads]
    content = bytearray(library.read_bytes())
    for address in addresses:
        offset, begin, _ = next(s for s in segments if s[1] <= address < s[1] + s[2])
        at = offset + address - begin
        if content[at : at + 2] != CPUID:
            raise RuntimeError(f"there is no cpuid at {at:#x} of {library}")
        content[at : at + 2] = UD2
    library.write_bytes(content)
    return len(addresses)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
