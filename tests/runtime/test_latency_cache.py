import json
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.runtime.latency_cache import cache_folder, load_table, save_table
from dynamic_tinybert.runtime.latency_table import LatencyTable

KEY = {"manifest": "a", "threads": "2", "versions": {"openvino": "1"}}
TABLE = LatencyTable({"full": {(32, 1): 1.25, (384, 1): 12.5, (384, 8): 90.0}, "fast": {(32, 1): 1.0}})


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()  # and no partial file is left
    return file


def test_a_table_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "latency"
    assert load_table(folder, KEY) is None
    save_table(folder, KEY, TABLE)
    assert load_table(folder, KEY) == TABLE
    save_table(folder, KEY, TABLE)
    assert only_file(folder).suffix == ".json"


@pytest.mark.parametrize("other", [{**KEY, "threads": "1"}, {**KEY, "versions": {"openvino": "2"}}, {}])
def test_another_key_has_another_table(other: dict[str, Any], tmp_path: Path) -> None:
    save_table(tmp_path, KEY, TABLE)
    assert load_table(tmp_path, other) is None


def good(folder: Path) -> dict[str, Any]:
    save_table(folder, KEY, TABLE)
    content: dict[str, Any] = json.loads(only_file(folder).read_text())
    return content


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"{", b"[]", b"null", b"{}", b"[" * 100_000, b" " * 2_000_000, b'{"key": {}, "ms": {}}'],
    ids=lambda content: repr(content[:12]),
)
def test_damaged_files_are_none(content: bytes, tmp_path: Path) -> None:
    good(tmp_path)
    only_file(tmp_path).write_bytes(content)
    assert load_table(tmp_path, KEY) is None
    save_table(tmp_path, KEY, TABLE)
    assert load_table(tmp_path, KEY) == TABLE


@pytest.mark.parametrize(
    "ms",
    [
        None,
        [],
        {"full": None},
        {"full": []},
        {"full": [[32, 1]]},
        {"full": [[32, 1, "1"]]},
        {"full": [[32, 1, 0]]},
        {"full": [[32, 1, -1.0]]},
        {"full": [[32, 1, 10**400]]},
        {"full": [[10**400, 1, 1.0]]},
        {"full": [[32, 1, 1.0], [32, 10**400, 1.0]]},
        {"full": [[32, 1, float("nan")]]},
        {"full": [[32, 1, float("inf")]]},
        {"full": [[32.5, 1, 1.0]]},
        {"full": [[0, 1, 1.0]]},
        {"full": [[True, 1, 1.0]]},
        {"full": [[32, 2, 1.0]]},
        {"full": [[32, 1, 1.0], [64, 8, 1.0]]},
    ],
)
def test_tables_that_are_none(ms: object, tmp_path: Path) -> None:
    content = good(tmp_path)
    only_file(tmp_path).write_text(json.dumps({**content, "ms": ms}))
    assert load_table(tmp_path, KEY) is None


def test_a_table_of_another_key_under_this_name(tmp_path: Path) -> None:
    content = good(tmp_path)
    only_file(tmp_path).write_text(json.dumps({**content, "key": {**KEY, "manifest": "b"}}))
    assert load_table(tmp_path, KEY) is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    save_table(tmp_path / "file" / "latency", KEY, TABLE)
    assert load_table(tmp_path / "file" / "latency", KEY) is None
    save_table(Path("/proc/nothing/latency"), KEY, TABLE)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    good(tmp_path)
    file = only_file(tmp_path)
    file.unlink()
    file.mkdir()
    assert load_table(tmp_path, KEY) is None
    save_table(tmp_path, KEY, TABLE)
    assert only_file(tmp_path).is_dir()


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNAMIC_TINYBERT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    own = Path("dynamic-tinybert", "latency")
    assert cache_folder() == tmp_path / "home" / ".cache" / own
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / own
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / own
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / own
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", str(tmp_path / "placed"))
    assert cache_folder() == tmp_path / "placed" / "latency"
    assert cache_folder(tmp_path / "given") == tmp_path / "given" / "latency"
    assert cache_folder("off") is None
