"""The kernels' own test program: on this CPU, under sanitizers, and for what this CPU lacks on emulated ones."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.encoder import extension_library

KERNELS = Path(__file__).parent
EMULATOR = KERNELS / "emulator"
NO_EMULATOR = 77  # the scripts' status

pytestmark = pytest.mark.slow  # the program takes longer to build than to run


def build(folder: Path, *options: str) -> Path:
    """The test program, in a folder of its own."""
    for tool in ("cmake", "c++"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not here: it builds the test of the kernels")
    for command in (["cmake", "-S", KERNELS, "-B", folder, *options], ["cmake", "--build", folder, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "kernel_test"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernels"))


def run(*command: str | Path, **variables: str) -> str:
    """What a command printed; it must have found nothing wrong."""
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode == NO_EMULATOR:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def right_paths(output: str) -> set[str]:
    """The paths that were compared, without a mismatch."""
    return {line.split(":")[0] for line in output.splitlines() if " comparisons, 0 mismatches" in line}


def test_every_path_that_this_cpu_has(program: Path) -> None:
    assert right_paths(run(program)) >= {*extension_library.available_isas(), "plain_tiles_256"}


def test_memory_and_undefined_behaviour(tmp_path: Path) -> None:
    output = run(build(tmp_path, "-DSANITIZE=ON"), ASAN_OPTIONS="detect_leaks=1")
    assert right_paths(output) >= {*extension_library.available_isas(), "plain_tiles_256"}


def test_a_path_that_is_not_there_is_no_success(program: Path) -> None:
    done = subprocess.run([program, "neon"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "neon: no such path" in done.stdout


def emulator() -> str:
    folder = os.environ.get("DYNAMIC_TINYBERT_TEST_EMULATOR")
    if not folder:
        pytest.skip("DYNAMIC_TINYBERT_TEST_EMULATOR is not set: it names a folder for an emulator of 0.6 GB")
    return folder


@pytest.mark.parametrize(
    ("model", "paths"), [("arrow_lake", ["avx_vnni"]), ("sapphire_rapids", ["avx512_vnni", "avx512"])]
)
def test_paths_that_this_cpu_lacks(model: str, paths: list[str], program: Path) -> None:
    missing = [path for path in paths if path not in extension_library.available_isas()]
    if not missing:
        pytest.skip(f"this CPU has {' and '.join(paths)}")
    output = run(EMULATOR / "on_emulated_cpu.sh", model, program, *missing, EMULATOR=emulator())
    assert right_paths(output) == set(missing)


def test_tiles_that_this_cpu_lacks() -> None:
    if "amx" in extension_library.available_isas():
        pytest.skip("this CPU has amx")
    output = run(EMULATOR / "amx_on_bare_metal.sh", EMULATOR=emulator())
    assert "amx, weights 0 ... 127: 0 of " in output
