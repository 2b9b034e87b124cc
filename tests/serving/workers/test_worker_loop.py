"""Workers run in the event loop of uvloop where that is installed, and elsewhere in that of asyncio."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.serving.jobs import AnswerJob

from support.held_model import TEXT
from support.worker_pools import pool_of

pytestmark = pytest.mark.usefixtures("nothing_stays")


@pytest.mark.parametrize("hidden", [False, True])
def test_a_worker_needs_no_uvloop(
    served: QuestionAnswerer, served_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    installed = importlib.util.find_spec("uvloop") is not None
    if hidden:
        (tmp_path / "uvloop.py").write_text("raise ImportError('it is not installed')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            loaded = "uvloop" in Path(f"/proc/{pool.pids[0]}/maps").read_text()
            assert loaded == (installed and not hidden)
            assert (await pool.run(AnswerJob(("who?",), (TEXT,)))).answers == served.answer_batch("who?", TEXT)

    asyncio.run(ask())
