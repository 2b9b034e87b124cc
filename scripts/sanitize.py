"""Run the tests of the C++ ops, and bundles damaged at random, under AddressSanitizer and UBSan.

    python scripts/sanitize.py [--mutations 60] [--build FOLDER] [PYTEST ARGUMENT ...]

Builds the extension with -DDYNAMIC_TINYBERT_SANITIZE=ON in FOLDER (build/sanitize), which needs GCC and CMake, and
preloads GCC's libasan. Python, OpenVINO and TBB are not instrumented, but every read and write of the ops is checked,
also of memory that those have allocated. The first error ends its process, and so fails the test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from dynamic_tinybert.runtime.encoder import extension_library

ROOT = Path(__file__).parents[1]
OP_TESTS = [
    f"tests/runtime/encoder/test_{op}.py"
    for op in (
        "attention_with_significance",
        "context_significance",
        "encoder_layers",
        "float_linear",
        "joined_ops",
        "learnt_significance",
        "quantized_embeddings",
        "quantized_linears",
        "restore_logits",
        "select_tokens",
    )
]


def build(folder: Path) -> Path:
    """Compile the extension with both sanitizers; returns the library."""
    configure = ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DDYNAMIC_TINYBERT_SANITIZE=ON"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *configure, f"-DPython_EXECUTABLE={sys.executable}"], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", str(len(os.sched_getaffinity(0)))], check=True)
    return folder / "libdynamic_tinybert_extension.so"


def environment(library: Path) -> dict[str, str]:
    """The environment in which a Python process loads `library` instead of the installed one."""
    compiler = os.environ.get("CXX", "g++")
    preloaded = [  # libstdc++, too, because libasan looks for its throw functions before Python has loaded it
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    return os.environ | {
        "DYNAMIC_TINYBERT_EXTENSION": str(library),
        "DYNAMIC_TINYBERT_TEST_ISAS": extension_library.isa(),  # tests/kernels sanitizes the others, in seconds
        "LD_PRELOAD": " ".join(preloaded),
        "TBB_ENABLE_SANITIZERS": "1",  # otherwise it loads libraries in a way that libasan refuses
        # Python and OpenVINO free nothing at exit, and libraries that throw are not built with libasan.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:alloc_dealloc_mismatch=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    }


def main() -> int:
    """Build, run the tests and the damaged bundles, and return the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=60)
    parser.add_argument("--build", type=Path, default=ROOT / "build/sanitize")
    arguments, pytest_arguments = parser.parse_known_args()
    library = build(arguments.build)
    for command in (
        ["-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", *OP_TESTS, *pytest_arguments],
        ["scripts/fuzz.py", "--mutations", str(arguments.mutations), "--requests", str(arguments.mutations)],
    ):
        run = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(library), check=False)
        if run.returncode:
            return run.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
