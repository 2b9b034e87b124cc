"""Fixtures of the tests with worker processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest


def _sockets() -> set[str]:
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(link.readlink()))
        except OSError:  # the file of the folder itself
            continue
    return {link for link in links if link.startswith("socket:")}


def _children() -> set[str]:
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Fail if a test leaves a process or a socket."""
    sockets, children = _sockets(), _children()
    yield
    assert _children() <= children
    assert _sockets() <= sockets
