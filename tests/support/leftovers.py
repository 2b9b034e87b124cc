"""What a test leaves behind in its own process: sockets and child processes."""

from pathlib import Path


def sockets() -> set[str]:
    """The open sockets of this process."""
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(link.readlink()))
        except OSError:  # the file of the folder itself
            continue
    return {link for link in links if link.startswith("socket:")}


def children() -> set[str]:
    """The ids of the child processes of this one."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
