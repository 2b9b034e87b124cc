"""How ops share work out among threads, by small C++ programs."""

import shutil
import subprocess
from pathlib import Path

import pytest
from openvino.utils import get_cmake_path


def test_all_work_is_done_once_and_none_waits_for_a_slow_thread(tmp_path: Path) -> None:
    for tool in ("cmake", "c++"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not here: it builds the program")
    source = Path(__file__).parent
    for command in (
        ["cmake", "-S", source, "-B", tmp_path, f"-DOpenVINO_DIR={get_cmake_path()}", "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", tmp_path],
        [tmp_path / "task_sharing_test"],
        [tmp_path / "stages_test"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
