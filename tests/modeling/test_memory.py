"""What a process holds after it has freed much."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
from dynamic_tinybert.modeling.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
block = bytearray(200 << 20)
block[:: 4096] = bytes(len(range(0, 200 << 20, 4096)))
del block
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * resource.getpagesize() >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_stays_with_the_process() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "leave")
    )
    assert kept > given_back + 150
