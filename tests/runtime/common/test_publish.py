"""Publishing a folder: it appears whole or not at all, and nothing is lost, whatever ends the writer."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

from dynamic_tinybert.runtime.common.errors import BundleExistsError, StorageError
from dynamic_tinybert.runtime.common.publish import publishing, writing

WRITER = """
import sys, time
from pathlib import Path
from dynamic_tinybert.runtime.common.publish import publishing
with publishing(Path(sys.argv[1]), force=True) as folder:
    (folder / "data").write_text("new")
    print("ready", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_old_bundle(target: Path) -> None:
    target.mkdir()
    (target / "dynamic_tinybert.json").write_text("old")


@contextlib.contextmanager
def writer(target: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of publishing `target`."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new parent" / "[bundle]"
    with publishing(target) as folder:
        assert folder.parent == target.parent
        assert not target.exists()
        (folder / "sub").mkdir()
        (folder / "sub/data").write_text("x")
    assert (target / "sub/data").read_text() == "x"
    assert names(target.parent) == ["[bundle]"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    with publishing(tmp_path / "bundle"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "bundle").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with publishing(tmp_path / "a/b/bundle") as folder:
            (folder / "data").write_text("x")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write_old_bundle(target)
    with pytest.raises(BundleExistsError, match=r"bundle exists already.*--force"), publishing(target):
        pytest.fail("the body ran")
    assert names(tmp_path) == ["bundle"]


def test_force_replaces_a_bundle(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write_old_bundle(target)
    with publishing(target, force=True) as folder:
        (folder / "data").write_text("new")
        assert (target / "dynamic_tinybert.json").read_text() == "old"
    assert names(tmp_path) == ["bundle"]
    assert names(target) == ["data"]


def test_force_replaces_an_empty_folder_but_no_other(tmp_path: Path) -> None:
    with publishing(tmp_path, force=True) as folder:
        (folder / "data").write_text("precious")
    with pytest.raises(BundleExistsError, match="not a bundle"), publishing(tmp_path, force=True):
        pytest.fail("the body ran")
    assert (tmp_path / "data").read_text() == "precious"


def test_force_replaces_what_a_link_points_to(tmp_path: Path) -> None:
    write_old_bundle(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    with publishing(tmp_path / "current", force=True) as folder:
        (folder / "data").write_text("new")
    assert names(tmp_path) == ["current", "v1"]
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1/data").read_text() == "new"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BundleExistsError, match="is a file"), publishing(tmp_path / "file", force=force):
        pytest.fail("the body ran")
    with pytest.raises(StorageError, match="cannot write"), publishing(tmp_path / "file/bundle", force=force):
        pytest.fail("the body ran")
    assert (tmp_path / "file").read_text() == "precious"


def test_an_impossible_place_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="File name too long"),
        publishing(tmp_path / ("x" * 300) / "bundle"),
    ):
        pytest.fail("the body ran")
    assert names(tmp_path) == []


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(StorageError, match=r"^/proc is a mount point"), publishing(Path("/proc"), force=True):
        pytest.fail("the body ran")


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(BundleExistsError), publishing(target):
        write_old_bundle(target)
    assert names(tmp_path) == ["bundle"]
    assert (target / "dynamic_tinybert.json").read_text() == "old"


def test_the_old_bundle_comes_back_if_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    write_old_bundle(target)
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if ".partial-" in self.name:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), publishing(target, force=True):
        pass
    assert names(tmp_path) == ["bundle"]
    assert (target / "dynamic_tinybert.json").read_text() == "old"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
@pytest.mark.parametrize("replacing", [False, True])
def test_signals_leave_nothing(tmp_path: Path, signum: int, code: int, replacing: bool) -> None:
    target = tmp_path / "parent" / "bundle"
    if replacing:
        target.parent.mkdir()
        write_old_bundle(target)
    with writer(target) as process:
        process.send_signal(signum)
        assert process.wait(10) == code
    if replacing:
        assert names(target.parent) == ["bundle"]
        assert names(target) == ["dynamic_tinybert.json"]
    else:
        assert names(tmp_path) == []


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
        ("signal.raise_signal(signal.SIGTERM)", 128 + signal.SIGTERM),
        ("sys.exit(3)", 3),
    ],
)
def test_no_signal_interrupts_the_clean_up(tmp_path: Path, first: str, code: int, second: str) -> None:
    script = WRITER.replace("time.sleep(60)", first).replace(
        "with publishing",
        f"""
import shutil, signal
rmtree = shutil.rmtree
def interrupted(*args, **kwargs):
    signal.raise_signal(signal.{second})
    rmtree(*args, **kwargs)
shutil.rmtree = interrupted
with publishing""",
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "bundle")], capture_output=True, check=False)
    assert run.returncode == code
    assert names(tmp_path) == []


def test_after_sigkill_the_next_run_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "[bundle]"
    with writer(target) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    (leftover,) = names(tmp_path)
    assert re.fullmatch(r"\.\[bundle\]\.partial-[0-9a-f]{8}", leftover)
    with publishing(target) as folder:
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == ["[bundle]"]


def test_folders_that_are_being_written_are_not_cleared(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with writer(target), publishing(target) as mine:
        with pytest.raises(ZeroDivisionError), publishing(target):
            _ = 1 / 0
        assert mine.is_dir()
        assert len(names(tmp_path)) == 2
    assert target.is_dir()


def test_killed_while_replacing_the_old_bundle_comes_back(tmp_path: Path) -> None:
    """Killed after the first of the two renames: the old bundle is aside, the new one not yet in place."""
    target = tmp_path / "bundle"
    write_old_bundle(target)
    script = WRITER.replace("time.sleep(60)", "").replace(
        "with publishing",
        """
import os, signal
rename = Path.rename
def killed(self, to):
    if ".partial-" in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
Path.rename = killed
with publishing""",
    )
    killed = subprocess.run([sys.executable, "-c", script, str(target)], stdout=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(BundleExistsError), publishing(target):
        pytest.fail("the body ran")
    assert names(tmp_path) == ["bundle"]
    assert (target / "dynamic_tinybert.json").read_text() == "old"


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    others = [".bundle.partial-mine", ".bundle2.partial-01234567", ".other.replaced-01234567"]
    for name in others:
        (tmp_path / name).mkdir()
    with publishing(tmp_path / "bundle"):
        pass
    assert names(tmp_path) == sorted([*others, "bundle"])


def test_handlers_are_restored_and_an_applications_own_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with publishing(tmp_path / "a"):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert {number: signal.getsignal(number) for number in default} == default

    received = []

    def raise_signals(*_: object, **__: object) -> None:
        for number in default:
            signal.raise_signal(number)

    monkeypatch.setattr(shutil, "rmtree", raise_signals)  # which the clean-up calls
    for number in default:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        with publishing(tmp_path / "b"):
            raise_signals()
        raise_signals()
        assert received == [*default] * 3
    finally:
        for number, handler in default.items():
            signal.signal(number, handler)


def test_publishing_from_a_thread(tmp_path: Path) -> None:
    def work() -> None:
        with publishing(tmp_path / "bundle") as folder:
            (folder / "data").write_text("x")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (tmp_path / "bundle/data").read_text() == "x"


FULL_DISK = """
import os, sys
from pathlib import Path
import numpy as np, openvino as ov
from openvino import opset13 as ops
from safetensors.numpy import save_file
from dynamic_tinybert.runtime.common.errors import StorageError
from dynamic_tinybert.runtime.common.publish import publishing, writing

weights = np.ones((512, 512), np.float32)
x = ops.parameter([1, 512], np.float32)
model = ov.Model([ops.matmul(x, ops.constant(weights), False, False)], [x])
place = Path(sys.argv[1])
(place / "bundle").mkdir()
(place / "bundle" / "dynamic_tinybert.json").write_text("old")
for write in (
    lambda file: file.write_bytes(weights.tobytes()),
    lambda file: save_file({"w": weights}, file),
    lambda file: ov.save_model(model, file.with_suffix(".xml")),
):
    try:
        with publishing(place / "bundle", force=True) as folder, writing(folder / "data"):
            write(folder / "data")
    except StorageError as error:
        print(error)
    assert os.listdir(place) == ["bundle"] and os.listdir(place / "bundle") == ["dynamic_tinybert.json"]
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """On a file system of 256 KiB, mounted in a namespace of its own that ends with the process."""
    namespace = ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=256k none '{tmp_path}'"
    if shutil.which("unshare") is None or subprocess.run([*namespace, "sh", "-c", mount], check=False).returncode:
        pytest.skip("this process may not mount a file system in a namespace of its own")
    in_namespace = [*namespace, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    run = subprocess.run(
        [*in_namespace, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    messages = run.stdout.splitlines()
    assert len(messages) == 3
    for message in messages:
        assert re.search(r"cannot write .*\.bundle\.partial-\w+/data: .* MB free in .*make room", message)


NO_SPACE = """
import resource, sys
from pathlib import Path
from dynamic_tinybert.runtime.common.publish import publishing
with publishing(Path(sys.argv[1])) as folder:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    (folder / "data").write_bytes(bytes(2000))
"""


def test_running_out_of_space_in_the_body_is_a_storage_error(tmp_path: Path) -> None:
    """A write that is not wrapped in `writing`, against a limit on the size of files."""
    run = subprocess.run(
        [sys.executable, "-c", NO_SPACE, str(tmp_path / "bundle")],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert re.search(r"StorageError: cannot write .*bundle.*: .*File too large", run.stderr)
    assert names(tmp_path) == []


def test_other_errors_of_the_body_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"), publishing(tmp_path / "bundle"):
        (tmp_path / "no-such-file").read_text()


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("iostream"), SafetensorError("I/O")])
def test_writing_names_the_file(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*model\.bin: (full|iostream|I/O)"):  # noqa: SIM117
        with writing(tmp_path / "model.bin"):
            raise error


def test_everything_reaches_the_disk_before_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, synced, fsync = tmp_path / "bundle", [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with publishing(target) as folder:
        (folder / "data").write_text("x")
    assert (folder / "data", False) in synced
    assert (folder, False) in synced
    assert synced[-1] == (tmp_path, True)
