"""Code for a faster CPU lies in functions of its own file only: of those that files share the linker keeps any one."""

import re
import subprocess
from pathlib import Path

import pytest

EXTENSION = Path(__file__).parents[3] / "runtime" / "extension"
FLAGS = ("-O3", "-std=c++20", "-march=x86-64-v2", "-ffp-contract=off", "-fPIC", f"-I{EXTENSION}")  # as CMakeLists.txt
BEYOND_THE_BASELINE = re.compile(r"%[yz]mm|\tv[a-z]")


def functions_beyond_the_baseline(source: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Functions that a CPU of the baseline cannot run, and those among them that other files may have, too."""
    compiled = folder / f"{source.stem}.o"
    subprocess.run(["c++", *FLAGS, "-c", source, "-o", compiled], check=True)
    symbols = [line.split() for line in output_of("nm", compiled).splitlines()]
    shared = {name for *_, kind, name in symbols if kind in "WVu"}
    found, function = set(), ""
    for line in output_of("objdump", "-d", "--no-show-raw-insn", compiled).splitlines():
        if begins := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            function = begins[1]
        elif BEYOND_THE_BASELINE.search(line):
            found.add(function)
    return found, found & shared


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted((EXTENSION / "kernels").glob("*avx*.cpp")), ids=lambda source: source.stem)
def test_files_share_no_code_for_a_faster_cpu(source: Path, tmp_path: Path) -> None:
    found, shared = functions_beyond_the_baseline(source, tmp_path)
    assert found
    assert not shared


@pytest.mark.slow
def test_nothing_else_is_for_a_faster_cpu(tmp_path: Path) -> None:
    for source in (EXTENSION / "kernels").glob("*.cpp"):
        if "avx" not in source.stem:
            assert functions_beyond_the_baseline(source, tmp_path)[0] == set()


def test_shared_code_for_a_faster_cpu_is_found(tmp_path: Path) -> None:
    source = tmp_path / "wrong.cpp"
    source.write_text(
        """
        #pragma GCC target("avx2")
        inline void twice(float* x) { for (int i = 0; i < 64; ++i) x[i] *= 2; }
        auto use = twice;
        """
    )
    assert functions_beyond_the_baseline(source, tmp_path)[1] == {"_Z5twicePf"}
