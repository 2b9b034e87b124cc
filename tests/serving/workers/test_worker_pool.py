"""What a pool of worker processes accepts, runs and refuses."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    LengthConfigError,
    OverloadedError,
    StartingError,
)
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.serving.jobs import AnswerJob, Backend, ExplainJob, LogitsJob
from dynamic_tinybert.serving.workers.main import Worker, _load
from dynamic_tinybert.serving.workers.messages import Cancel, Done, Failed, Hello, Ping, Pong, Run, Start
from dynamic_tinybert.serving.workers.options import ModelOptions, Timeouts, threads_arguments
from dynamic_tinybert.serving.workers.pool import WorkerPool
from dynamic_tinybert.serving.workers.process import WorkerProcess

from support.held_model import DOCUMENT, TEXT, begun, held, started
from support.worker_pools import pool_of, until, worker_channel

pytestmark = pytest.mark.usefixtures("nothing_stays")

JOB = AnswerJob(("who?",), (TEXT,))


def _uvloop_run(main: Coroutine[Any, Any, None]) -> None:
    pytest.importorskip("uvloop").run(main)


@pytest.mark.parametrize("run", [asyncio.run, _uvloop_run])
@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_those_of_direct_calls(
    served: QuestionAnswerer, served_bundle: Path, workers: int, run: Callable[..., None]
) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, workers=workers) as pool:
            backend: Backend = pool
            assert backend.ready
            assert pool.alive == len(pool.pids) == workers
            assert backend.facts is not None
            assert list(backend.facts.length_configs) == ["full", "half"]
            questions = [f"{letter}?" for letter in "abcdefghij" * 4]
            answers = await asyncio.gather(*(backend.run(AnswerJob((q,), (TEXT,))) for q in questions))
            assert [answered.answers for answered in answers] == [served.answer_batch(q, TEXT) for q in questions]
            document = await backend.run(AnswerJob(("who?",), (DOCUMENT,), {"length_config": "half", "top_k": 3}))
            assert document.answers == served.answer_batch("who?", DOCUMENT, length_config="half", top_k=3)
            ids = np.array([[2, 40, 3, 50, 51, 3]])
            logits = await backend.run(LogitsJob(ids, length_config="half"))
            np.testing.assert_array_equal(
                logits.outputs["start_logits"], served.model(ids, length_config="half").start_logits
            )
            explanation = await backend.run(ExplainJob("who?", TEXT, "half"))
            assert explanation == explain(served.model, "who?", TEXT, length_config="half").to_dict()
            assert (backend.queued, backend.running) == (0, 0)

    run(ask())


def test_errors_are_raised_as_the_worker_raised_them(served_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle) as pool:
            with pytest.raises(InvalidInputError, match="empty"):
                await pool.run(AnswerJob(("",), (TEXT,)))
            with pytest.raises(LengthConfigError, match="'none'"):
                await pool.run(ExplainJob("who?", TEXT, "none"))
            with pytest.raises(InferenceError, match=r"TypeError.*sizes"):
                await pool.run(AnswerJob(("who?",), (TEXT,), {"sizes": 1}))
            with pytest.raises(Exception, match="pickle"):
                await pool.run(AnswerJob(("who?",), (TEXT,), {"top_k": lambda: None}))
            assert (await pool.run(JOB)).answers
            assert pool.restarts == {"crashed": 0, "hung": 0}

    asyncio.run(ask())
    written = capfd.readouterr().err
    assert "Traceback" in written
    assert "TypeError" in written


def test_a_full_queue_refuses_at_once(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, max_queued=2, in_hand=3) as pool:
            await pool.run(JOB)
            os.kill(pool.pids[0], signal.SIGSTOP)
            accepted = [started(pool.run(JOB)) for _ in range(5)]
            await asyncio.sleep(0)
            assert (pool.queued, pool.running) == (2, 3)
            with pytest.raises(OverloadedError, match=r"5 requests.*max_queued=2 and 1 processes") as refused:
                await pool.run(JOB)
            assert refused.value.retry_after_s is not None
            assert refused.value.retry_after_s > 0
            accepted[4].cancel()  # it waits
            accepted[0].cancel()  # it was given to the worker
            await asyncio.wait([accepted[0], accepted[4]])
            assert (pool.queued, pool.running) == (0, 3)
            accepted += [started(pool.run(JOB)) for _ in range(2)]
            await asyncio.sleep(0)
            assert (pool.queued, pool.running) == (2, 3)
            os.kill(pool.pids[0], signal.SIGCONT)
            results = await asyncio.gather(*accepted, return_exceptions=True)
            assert [type(result).__name__ for result in results].count("CancelledError") == 2
            assert [type(result).__name__ for result in results].count("Answered") == 5

    asyncio.run(ask())


def test_deadlines_hold_in_the_queue_and_in_a_worker(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, in_hand=1) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            given, waits = (started(pool.run(JOB, deadline=time.monotonic() + 0.05)) for _ in range(2))
            await asyncio.sleep(0)
            assert (pool.queued, pool.running) == (1, 1)
            for late in (given, waits):
                with pytest.raises(DeadlineExceededError):
                    await late
            assert (pool.queued, pool.running) == (0, 0)
            with pytest.raises(DeadlineExceededError):
                await pool.run(JOB, deadline=time.monotonic() - 1)
            os.kill(pool.pids[0], signal.SIGCONT)
            assert (await pool.run(JOB, deadline=time.monotonic() + 60)).answers

    asyncio.run(ask())


def test_a_cancelled_document_makes_room_in_the_worker(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, in_hand=1) as pool:
            long = started(pool.run(AnswerJob(("who?",), (DOCUMENT * 300,))))
            await until(lambda: pool.running == 1)
            long.cancel()
            await asyncio.wait([long])
            assert pool.running == 0
            await pool.run(JOB)
            assert long.cancelled()

    asyncio.run(ask())


def test_a_worker_forgets_jobs_however_they_end(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with worker_channel() as (channel, replies):
            worker = Worker(AsyncQuestionAnswerer(served), channel)
            worker.handle(Run(1, JOB, None))
            worker.handle(Cancel(1))  # before it began
            worker.handle(Run(2, AnswerJob(("",), (TEXT,)), None))
            worker.handle(Run(3, JOB, None))
            worker.handle(Run(4, AnswerJob(("who?",), (DOCUMENT * 40,)), None))
            worker.handle(Cancel(99))
            await until(lambda: worker.running == 1)
            worker.handle(Cancel(4))
            await until(lambda: worker.running == 0 and len(replies) == 2)
            assert {type(reply).__name__: getattr(reply, "number", None) for reply in replies} == {
                "Failed": 2,
                "Done": 3,
            }
            await worker.end()

    asyncio.run(ask())


def test_a_panic_is_an_error_like_any_other(served: QuestionAnswerer) -> None:
    class Panic(BaseException):
        """As that of tokenizers, which is no Exception either."""

    def panics(_: object) -> str:
        raise Panic("as if a text broke the tokenizer")

    async def ask() -> None:
        async with worker_channel() as (channel, replies):
            worker = Worker(AsyncQuestionAnswerer(served), channel)
            worker.handle(Run(1, AnswerJob(map(panics, [1]), (TEXT,)), None))
            await until(lambda: worker.running == 0)
            worker.handle(Run(2, JOB, None))
            await until(lambda: worker.running == 0)
            try:
                await until(lambda: len(replies) > 1)
            finally:
                await worker.end()
        failed, done = replies
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, InferenceError)
        assert "Panic: as if a text" in str(failed.error)
        assert isinstance(done, Done)

    asyncio.run(ask())


def test_a_worker_that_comes_to_the_end_of_batches_is_seen_to_work(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(served) as (slow, calls):
            async with worker_channel() as (channel, replies):
                worker = Worker(AsyncQuestionAnswerer(slow, workers=1), channel)
                worker.handle(Run(1, AnswerJob(("who?",), (DOCUMENT,)), None))
                await begun(calls)
                for number in (2, 3):
                    worker.handle(Run(number, JOB, None))
                worker.handle(Ping())
                calls.let(1)
                await begun(calls)  # of the second job: the first batch of the document is done
                worker.handle(Ping())  # the first one still waits behind the third job
                await until(lambda: len(replies) == 2)
                before, after = replies
                assert isinstance(before, Pong)
                assert isinstance(after, Pong)
                assert after.turns > before.turns
                calls.open()
                await worker.end()

    asyncio.run(ask())


@pytest.mark.parametrize("warm_up", [True, False])
def test_a_worker_that_is_given_a_latency_table_compiles_graphs_if_it_is_to_warm_up(
    served_bundle: Path, warm_up: bool
) -> None:
    table = LatencyTable({name: {(32, 1): 1.0, (384, 1): 10.0} for name in ("full", "half")})
    options = ModelOptions(served_bundle, warm_up=warm_up, arguments={"num_threads": 1})
    hello, service = _load(Start(options, table))
    assert hello.table is table
    assert service.model.is_compiled("half") is warm_up
    assert service.model.has_elastic_graph is warm_up


def test_a_pool_that_is_closed_as_a_worker_says_hello_ends_that_worker(
    served_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, closings = WorkerProcess.start, []

    async def start_and_close(worker: WorkerProcess, table: LatencyTable | None = None) -> Hello:
        hello = await start(worker, table)
        closings.append(started(pool.aclose()))
        await asyncio.sleep(0)
        return hello

    monkeypatch.setattr(WorkerProcess, "start", start_and_close)
    pool: WorkerPool

    async def ask() -> None:
        nonlocal pool
        pool = WorkerPool(ModelOptions(served_bundle, warm_up=False, arguments={"num_threads": 1}))
        await asyncio.wait([started(pool.start())])
        await closings[0]  # `nothing_stays` sees that the process has ended

    asyncio.run(ask())


def test_jobs_go_to_the_worker_that_has_the_fewest(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, workers=2) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            stuck = [started(pool.run(JOB)) for _ in range(6)]
            await until(lambda: sum(task.done() for task in stuck) == 3)
            for _ in range(3):  # whatever comes one by one goes to the other worker
                await pool.run(JOB)
            assert pool.running == 3
            os.kill(pool.pids[0], signal.SIGCONT)
            await asyncio.gather(*stuck)

    asyncio.run(ask())


def test_aclose_finishes_what_was_accepted(served: QuestionAnswerer, served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, in_hand=2) as pool:
            accepted = [started(pool.run(AnswerJob((f"{n}?",), (DOCUMENT,)))) for n in range(6)]
            await asyncio.sleep(0)
            closing = [started(pool.aclose()) for _ in range(2)]
            await asyncio.sleep(0)
            assert pool.draining
            assert not pool.ready
            with pytest.raises(ClosedError):
                await pool.run(JOB)
            answers = [(await job).answers for job in accepted]
            assert answers == [served.answer_batch(f"{n}?", DOCUMENT) for n in range(6)]
            await asyncio.gather(*closing)
            assert (pool.alive, pool.pids) == (0, [])
            await pool.aclose()

    asyncio.run(ask())


def test_aclose_has_a_time_limit(served_bundle: Path) -> None:
    async def ask() -> None:
        async with pool_of(served_bundle, in_hand=1, timeouts=Timeouts(drain_s=0.1, exit_s=0.1)) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            jobs = [started(pool.run(JOB)) for _ in range(2)]
            await asyncio.sleep(0)
            await asyncio.wait_for(pool.aclose(), 30)
            for job in jobs:
                with pytest.raises(ClosedError, match="closed before"):
                    await job

    asyncio.run(ask())


def test_a_pool_takes_jobs_once_it_is_started(served_bundle: Path) -> None:
    async def ask() -> None:
        pool = WorkerPool(ModelOptions(served_bundle))
        assert (pool.ready, pool.facts) == (False, None)
        with pytest.raises(StartingError):
            await pool.run(JOB)
        starting = started(pool.start())
        await asyncio.sleep(0.05)
        with pytest.raises(StartingError):
            await pool.run(JOB)
        await starting
        assert pool.ready
        with pytest.raises(ClosedError):
            await pool.start()
        await pool.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("by", ["aclose", "cancel"])
def test_a_start_can_be_given_up(served_bundle: Path, by: str) -> None:
    async def ask() -> None:
        pool = WorkerPool(ModelOptions(served_bundle), workers=2)
        starting = started(pool.start())
        await asyncio.sleep(0.05)
        if by == "cancel":
            starting.cancel()
        else:
            await asyncio.wait_for(pool.aclose(), 30)
        with pytest.raises(asyncio.CancelledError if by == "cancel" else ClosedError):
            await starting
        assert not pool.alive

    asyncio.run(ask())


def test_a_warmed_up_worker_has_its_latency_table(
    served_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", str(tmp_path))

    async def ask() -> None:
        pool = WorkerPool(ModelOptions(served_bundle, name="warm"), threads=1)
        await pool.start()
        (table,) = tmp_path.rglob("*.json")
        table.unlink()
        assert (pool.facts and pool.facts.name) == "warm"
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        answered = await pool.run(AnswerJob(("who?",), (TEXT,), {"budget_ms": 1e6}))
        assert answered.answers[0][0]["budget_met"] is True
        assert not table.exists()  # the worker after it got the table, and did not measure again
        json.dumps(answered.answers)
        await pool.aclose()

    asyncio.run(ask())


def test_threads_are_shared_by_workers() -> None:
    assert threads_arguments(1) == {}
    assert threads_arguments(1, 3) == {"num_threads": 3}
    not_pinned = {"ov_config": {"ENABLE_CPU_PINNING": False}}
    assert threads_arguments(2, 5) == {"num_threads": 2, **not_pinned}
    assert threads_arguments(3, 2) == {"num_threads": 1, **not_pinned}
    assert threads_arguments(2) == {"num_threads": max(1, default_threads() // 2), **not_pinned}


@pytest.mark.parametrize("option", ["workers", "max_queued", "in_hand"])
def test_numbers_are_at_least_1(option: str) -> None:
    with pytest.raises(InvalidInputError, match=option):
        WorkerPool(ModelOptions(), **{option: 0})
