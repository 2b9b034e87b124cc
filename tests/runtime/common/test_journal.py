"""The journal: what comes back after any end of the process, and what is refused."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import InvalidInputError, StorageError
from dynamic_tinybert.runtime.common.journal import Journal

HEADER = {"format": 1, "bundle": "a1b2", "seed": 3}
ENTRIES = [("trial", "a", [0.1, 100.0]), ("latency", "a", {"ms": 1 / 3}), ("trial", "ü\n", [])]


def write(path: Path) -> bytes:
    with Journal(path, HEADER) as journal:
        for entry in ENTRIES:
            journal.add(*entry)
    return path.read_bytes()


def contents(journal: Journal) -> list[tuple[str, str, Any]]:
    return [(kind, key, value) for kind in ("trial", "latency") for key, value in journal.all(kind).items()]


def test_reopened_journal_has_everything_in_order(tmp_path: Path) -> None:
    write(tmp_path / "j")
    with Journal(tmp_path / "j", HEADER) as journal:
        assert journal.get("trial", "a") == [0.1, 100.0]
        assert journal.get("latency", "a") == {"ms": 1 / 3}
        assert journal.get("trial", "b") is None
        assert journal.get("other", "a") is None
        assert list(journal.all("trial")) == ["a", "ü\n"]


def test_later_value_of_a_key_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("trial", "a", 1)
        journal.add("trial", "a", 2)
        assert journal.get("trial", "a") == 2
    with Journal(tmp_path / "j", HEADER) as journal:
        assert journal.get("trial", "a") == 2


def test_a_value_is_the_same_before_and_after_reopening(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("trial", "a", {"f1": (1.0, None)})
        assert journal.get("trial", "a") == {"f1": [1.0, None]}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_come_back_to_the_bit(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "floats"
    path.unlink(missing_ok=True)
    with Journal(path, HEADER) as journal:
        journal.add("trial", "a", values)
    with Journal(path, HEADER) as journal:
        assert [value.hex() for value in journal.get("trial", "a") or ()] == [value.hex() for value in values]


def test_cut_off_at_any_byte_loses_only_the_last_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "j")
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with Journal(tmp_path / "cut", HEADER) as journal:
            left = max(0, sum(end <= cut for end in ends) - 1)  # the first line is the header
            assert sorted(contents(journal), key=str) == sorted(ENTRIES[:left], key=str)
            for entry in ENTRIES[left:]:
                journal.add(*entry)
        assert (tmp_path / "cut").read_bytes() == whole


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (HEADER | {"seed": 4}, "its seed is 3, here it is 4"),
        (HEADER | {"data": "c3"}, "its data is None, here it is 'c3'"),
        ({"format": 1, "seed": 3}, "its bundle is 'a1b2', here it is None"),
    ],
)
def test_journal_of_another_run_is_refused(tmp_path: Path, header: dict[str, Any], named: str) -> None:
    before = write(tmp_path / "j")
    with pytest.raises(
        InvalidInputError, match=f"another run: {named}; use the options and data of that run, or delete"
    ):
        Journal(tmp_path / "j", header)
    assert (tmp_path / "j").read_bytes() == before


def test_header_of_tuples_is_that_of_lists(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", {"limits": (0.5, 1.0)}):
        pass
    with Journal(tmp_path / "j", {"limits": (0.5, 1.0)}):
        pass


@pytest.mark.parametrize("damage", [b"", b"\0\0\0", b"[1]", b'{"kind": "trial", "key": 1, "value": 2}', b'{"a": '])
@pytest.mark.parametrize("line", [2, 3, 4])
def test_damage_before_the_end_is_named(tmp_path: Path, damage: bytes, line: int) -> None:
    lines = write(tmp_path / "j").split(b"\n")
    lines[line - 1] = damage
    (tmp_path / "j").write_bytes(b"\n".join(lines))
    with pytest.raises(InvalidInputError, match=rf"line {line} of .* is damaged"):
        Journal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == b"\n".join(lines)


@pytest.mark.parametrize("content", [b"some notes", b"some notes\n", b'{"kind": "trial", "key": "a", "value": 1}\n'])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(InvalidInputError, match="not a journal"):
        Journal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == content


def test_second_process_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    program = f"""
from dynamic_tinybert.runtime.common.journal import Journal
journal = Journal({str(tmp_path / "j")!r}, {HEADER!r})
print("open", flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InvalidInputError, match="in use by another process"):
            Journal(tmp_path / "j", HEADER)
        other.kill()
    Journal(tmp_path / "j", HEADER).close()


def test_a_failed_open_releases_the_lock(tmp_path: Path) -> None:
    write(tmp_path / "j")
    with pytest.raises(InvalidInputError):
        Journal(tmp_path / "j", {})
    Journal(tmp_path / "j", HEADER).close()


def test_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        Journal(tmp_path / "missing" / "j", HEADER)


def test_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    # The limit on a file's size stops a write in its middle, as a full disk does.
    program = f"""
import resource, signal
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Journal({str(tmp_path / "j")!r}, {HEADER!r}) as journal:
    journal.add("trial", "a", 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    try:
        journal.add("trial", "long", "x" * 500)
    except StorageError as error:
        print(error)
    assert journal.get("trial", "long") is None
    journal.add("trial", "b", 2)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "cannot write" in said
    assert "make room" in said
    with Journal(tmp_path / "j", HEADER) as journal:
        assert dict(journal.all("trial")) == {"a": 1, "b": 2}


def test_each_entry_is_on_the_disk_when_add_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((tmp_path / "j").read_bytes()))
    whole = write(tmp_path / "j")
    assert synced == [b"".join(whole.splitlines(keepends=True)[: n + 1]) for n in range(1 + len(ENTRIES))]


def test_failed_sync_takes_the_entry_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        before = (tmp_path / "j").read_bytes()

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="input/output error"):
            journal.add("trial", "a", 1)
        assert journal.get("trial", "a") is None
    assert (tmp_path / "j").read_bytes() == before


def test_a_value_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal, pytest.raises(ValueError, match="not JSON compliant"):
        journal.add("trial", "a", math.inf)
    assert [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()] == [{"journal": HEADER}]
