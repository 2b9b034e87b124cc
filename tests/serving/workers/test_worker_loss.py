"""Worker processes that crash, hang or cannot start are replaced, and no job is forgotten."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    StartingError,
    WorkerLostError,
)
from dynamic_tinybert.serving.jobs import AnswerJob
from dynamic_tinybert.serving.workers import pool as pool_module
from dynamic_tinybert.serving.workers.options import ModelOptions, Timeouts
from dynamic_tinybert.serving.workers.pool import WorkerPool

from support.held_model import DOCUMENT, TEXT, started
from support.worker_pools import job_that_calls, job_that_holds_a_thread, pool_of, until

pytestmark = pytest.mark.usefixtures("nothing_stays")

JOB = AnswerJob(("who?",), (TEXT,))


def test_jobs_of_a_killed_worker_are_run_by_another(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, in_hand=4) as pool:
            (pid,) = pool.pids
            os.kill(pid, signal.SIGSTOP)  # so that it has not answered when it is killed
            jobs = [started(pool.run(AnswerJob((f"{n}?",), (TEXT,)))) for n in range(7)]
            await asyncio.sleep(0)
            assert (pool.queued, pool.running) == (3, 4)
            os.kill(pid, signal.SIGKILL)
            answers = [(await job).answers for job in jobs]
            assert answers == [served.answer_batch(f"{n}?", TEXT) for n in range(7)]
            assert pool.restarts == {"crashed": 1, "hung": 0}
            assert pool.pids != [pid]

    asyncio.run(ask())


def test_a_worker_that_is_killed_while_the_model_runs(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            long = started(pool.run(AnswerJob(("who?",), (DOCUMENT * 10,))))
            for number in range(3):
                assert (await pool.run(AnswerJob((f"{number}?",), (TEXT,)))).answers  # between two of its batches
            assert not long.done()
            os.kill(pool.pids[0], signal.SIGKILL)
            assert (await long).answers == served.answer_batch("who?", DOCUMENT * 10)
            assert pool.restarts["crashed"] == 1

    asyncio.run(ask())


def test_one_of_two_workers_is_killed(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, workers=2) as pool:
            first, second = pool.pids
            os.kill(first, signal.SIGSTOP)
            jobs = [started(pool.run(AnswerJob((f"{n}?",), (TEXT,)))) for n in range(8)]
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            answers = [(await job).answers for job in jobs]
            assert answers == [served.answer_batch(f"{n}?", TEXT) for n in range(8)]
            await until(lambda: pool.alive == 2)
            assert second in pool.pids

    asyncio.run(ask())


def test_a_job_that_ends_processes_takes_no_other_with_it(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)  # so that it gets all of them before it reads the first
            jobs = [started(pool.run(AnswerJob((f"{n}?",), (TEXT,)))) for n in range(3)]
            poison = started(pool.run(job_that_calls(os._exit, 3)))
            jobs += [started(pool.run(AnswerJob((f"{n}?",), (TEXT,)))) for n in range(3, 6)]
            await asyncio.sleep(0)
            os.kill(pool.pids[0], signal.SIGCONT)
            with pytest.raises(WorkerLostError, match="two processes"):
                await poison
            answers = [(await job).answers for job in jobs]
            assert answers == [served.answer_batch(f"{n}?", TEXT) for n in range(6)]
            assert pool.restarts == {"crashed": 2, "hung": 0}
            assert (await pool.run(JOB)).answers

    asyncio.run(ask())


def test_a_stopped_worker_is_replaced(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        timeouts = Timeouts(beat_s=0.1, silence_s=2)
        async with pool_of(served_bundle, timeouts=timeouts) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            assert (await pool.run(JOB)).answers == served.answer_batch("who?", TEXT)
            assert pool.restarts == {"crashed": 0, "hung": 1}

    asyncio.run(ask())


@pytest.mark.slow
def test_a_worker_whose_threads_hang_is_replaced(served_bundle: Path) -> None:
    async def ask() -> None:
        timeouts = Timeouts(beat_s=0.1, turn_s=2)
        async with pool_of(served_bundle, timeouts=timeouts) as pool:
            hanging = [started(pool.run(job_that_holds_a_thread())) for _ in range(2)]
            await asyncio.sleep(0)
            waits = started(pool.run(JOB))
            for job in hanging:  # first both threads hang; then each job hangs for itself
                with pytest.raises(WorkerLostError):
                    await job
            assert (await waits).answers
            assert pool.restarts == {"crashed": 0, "hung": 3}

    asyncio.run(ask())


def test_a_job_that_waits_out_its_deadline_in_a_lost_worker_is_not_run_again(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            late = started(pool.run(JOB, deadline=time.monotonic() + 0.05))
            await asyncio.wait([late])
            os.kill(pool.pids[0], signal.SIGKILL)
            await pool.run(JOB)
            assert isinstance(late.exception(), TimeoutError)

    asyncio.run(ask())


def test_a_drain_survives_the_loss_of_the_worker(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            accepted = started(pool.run(JOB))
            await asyncio.sleep(0)
            closing = started(pool.aclose())
            os.kill(pool.pids[0], signal.SIGKILL)
            assert (await accepted).answers == served.answer_batch("who?", TEXT)
            await closing

    asyncio.run(ask())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bundle_that_cannot_be_loaded_is_an_error_of_the_start(
    served_bundle: Path, tmp_path: Path, workers: int
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(served_bundle, damaged)
    (damaged / "config.json").write_text("{}")

    async def start(bundle: Path) -> None:
        pool = WorkerPool(ModelOptions(bundle), workers=workers)
        await asyncio.wait_for(pool.start(), 60)

    with pytest.raises(BundleNotFoundError):
        asyncio.run(start(tmp_path / "none"))
    with pytest.raises(BundleCorruptError):
        asyncio.run(start(damaged))


def test_a_start_that_takes_too_long_is_an_error(served_bundle: Path) -> None:
    async def start() -> None:
        pool = WorkerPool(ModelOptions(served_bundle), timeouts=Timeouts(start_s=0.05))
        with pytest.raises(WorkerLostError, match=r"not loaded its model in 0\.05 s"):
            await pool.start()

    asyncio.run(start())


def test_a_process_that_dies_while_it_loads_is_an_error_of_the_start(
    served_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> None:
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
        pool = WorkerPool(ModelOptions(served_bundle))
        with pytest.raises(WorkerLostError, match="ended with exit code 1 before"):
            await pool.start()
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        pool = WorkerPool(ModelOptions(served_bundle))
        with pytest.raises(FileNotFoundError):
            await pool.start()

    asyncio.run(start())


def test_while_no_worker_can_be_started_jobs_are_refused(
    served_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(served_bundle, bundle)
    monkeypatch.setattr(pool_module, "_FIRST_PAUSE_S", 0.2)

    async def ask() -> None:
        async with pool_of(bundle) as pool:
            bundle.rename(tmp_path / "away")
            os.kill(pool.pids[0], signal.SIGKILL)
            with pytest.raises(WorkerLostError, match=r"starts: .*bundle"):
                await pool.run(JOB)
            assert not pool.ready
            with pytest.raises(StartingError):
                await pool.run(JOB)
            (tmp_path / "away").rename(bundle)
            await until(lambda: pool.ready)
            assert (await pool.run(JOB)).answers

    asyncio.run(ask())


_FRONT = """
import asyncio, sys
from pathlib import Path
from dynamic_tinybert.serving.workers.options import ModelOptions
from dynamic_tinybert.serving.workers.pool import WorkerPool

async def main():
    pool = WorkerPool(ModelOptions(Path(sys.argv[1]), warm_up=False), workers=2)
    await pool.start()
    print(*pool.pids, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_workers_end_with_the_front_process(served_bundle: Path) -> None:
    command = [sys.executable, "-c", _FRONT, str(served_bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        pids = [int(pid) for pid in front.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)  # is for the front process
            os.kill(pid, signal.SIGINT)
        os.kill(pids[0], signal.SIGSTOP)  # it cannot see the end of the connection
        front.kill()
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
