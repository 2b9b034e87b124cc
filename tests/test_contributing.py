"""CONTRIBUTING.md names files that are there."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Which file do I touch")[2]


def named_files() -> Iterator[tuple[str, Path]]:
    """Each name as it stands, and the file or pattern: names without a folder are in that of the path before them."""
    for line in TEXT.splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w./*]+)`", line):
            if "/" in name or (ROOT / name).is_file():
                folder = (ROOT / name).parent if "." in name else ROOT / name
                yield name, ROOT / name
            elif re.fullmatch(r"[\w*]+\.(py|cpp|hpp|inl|txt|md)", name):
                yield name, folder / name


def test_files_are_there() -> None:
    found = dict(named_files())
    assert len(found) > 60
    assert [name for name, file in found.items() if not any(file.parent.glob(file.name))] == []
