"""Which requests an asynchronous answerer accepts, runs and gives up, and in which order."""

import asyncio
import gc
import pickle
import threading
import time
from typing import Any

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    DeadlineExceededError,
    InvalidInputError,
    OverloadedError,
)
from dynamic_tinybert.serving.requests import Request

from support.held_model import DOCUMENT, DOCUMENT_ROWS, TEXT, all_prepared, begun, busy, held, started

pytestmark = pytest.mark.usefixtures("no_worker_stays")


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(served, max_queued=3) as (service, calls, first):
            waiting = [started(service("who?", TEXT)) for _ in range(3)]
            await asyncio.sleep(0)
            assert (service.queued, service.running) == (3, 1)
            with pytest.raises(OverloadedError, match="max_queued=3 and 1 workers accept; try again later") as refused:
                await asyncio.wait_for(service("who?", TEXT), 1)
            assert refused.value.retry_after_s is None  # nothing was measured
            await asyncio.sleep(0.2)
            calls.let(1)
            await first
            await begun(calls)  # the second one's
            waiting.append(started(service("who?", TEXT)))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="try again in about") as refused:
                await service("who?", TEXT)
            assert refused.value.retry_after_s is not None
            assert 4 * 0.2 <= refused.value.retry_after_s < 4 * 20  # four as long as the one that was measured
            again = pickle.loads(pickle.dumps(refused.value))
            assert (again.retry_after_s, str(again)) == (refused.value.retry_after_s, str(refused.value))
            calls.open()
            assert await asyncio.gather(*waiting) == [served("who?", TEXT)] * 4
            assert await service("who?", TEXT) == served("who?", TEXT)

    asyncio.run(ask())


@pytest.mark.parametrize("by", ["timeout", "deadline"])
def test_a_request_whose_deadline_passes_while_it_waits_is_not_run(served: QuestionAnswerer, by: str) -> None:
    async def ask() -> None:
        async with busy(served) as (service, calls, first):
            limit: dict[str, Any] = {by: 0.05 if by == "timeout" else time.monotonic() + 0.05}
            late = started(service("late?", TEXT, **limit))
            punctual = started(service("who?", TEXT, timeout=60))
            with pytest.raises(DeadlineExceededError, match=r"not answered by its deadline, 0\.0\d* s after"):
                await asyncio.wait_for(late, 10)  # while the model is still held
            assert service.queued == 1
            calls.open()
            assert await punctual == served("who?", TEXT)
            assert await first == served("first?", TEXT)
            assert len(calls.rows) == 2

    asyncio.run(ask())


def test_a_worker_finds_the_deadline_passed_although_the_loop_is_busy(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(served) as (service, calls, first):
            late = started(service("late?", TEXT, timeout=0.05))
            await asyncio.sleep(0)
            time.sleep(0.1)  # the loop's own clock cannot ring
            calls.open()
            while service.running:
                time.sleep(0.001)
            with pytest.raises(DeadlineExceededError):
                await late
            await first
            assert len(calls.rows) == 1

    asyncio.run(ask())


def test_a_deadline_ends_a_document_between_its_windows(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(served) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=1) as service:
                document = started(service("who?", DOCUMENT, timeout=0.2))
                await begun(calls)
                with pytest.raises(DeadlineExceededError):
                    await document
                calls.open()
                assert await service("who?", TEXT) == served("who?", TEXT)
            assert calls.rows == [*DOCUMENT_ROWS[:1], 1]

    asyncio.run(ask())


def test_a_cancelled_request_frees_its_place(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(served, max_queued=2) as (service, calls, _):
            waiting = [started(service(f"{k}?", TEXT)) for k in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
            assert service.queued == 1
            other = started(service("who?", TEXT))
            await asyncio.sleep(0)
            assert service.queued == 2
            calls.open()
            assert await other == served("who?", TEXT)
            assert await waiting[1] == served("1?", TEXT)
            assert len(calls.rows) == 3

    asyncio.run(ask())


def test_a_request_that_is_cancelled_while_it_runs_takes_no_further_batch(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(served) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=1) as service:
                document = started(service("who?", DOCUMENT))
                await begun(calls)
                document.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await document
                calls.open()
                assert await service("who?", TEXT) == served("who?", TEXT)
                assert (service.queued, service.running) == (0, 0)
            assert calls.rows == [*DOCUMENT_ROWS[:1], 1]

    asyncio.run(ask())


def test_a_long_document_starves_nobody_and_is_not_starved(served: QuestionAnswerer) -> None:
    order: list[str] = []

    async def ask() -> None:
        with held(served) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=1) as service:

                async def named(name: str, context: str) -> object:
                    answer = await service("who?", context)
                    order.append(name)
                    return answer

                document = started(named("document", DOCUMENT))
                await begun(calls)  # it was first
                short = [started(named("short", TEXT)) for _ in range(50)]
                await asyncio.sleep(0)
                calls.open()
                assert await asyncio.gather(*short) == [served("who?", TEXT)] * 50
                assert not document.done()
                assert await document == served("who?", DOCUMENT)
            assert calls.rows == DOCUMENT_ROWS[:1] + 50 * [1] + DOCUMENT_ROWS[1:]

    asyncio.run(ask())
    assert order == ["short"] * 50 + ["document"]


def test_a_document_ends_although_short_questions_never_do(served: QuestionAnswerer) -> None:
    async def ask() -> int:
        asked = 0
        async with AsyncQuestionAnswerer(served, workers=1) as service:
            document = started(service("who?", DOCUMENT))

            async def keep_asking() -> None:
                nonlocal asked
                while not document.done():
                    await service("who?", TEXT)
                    asked += 1

            await asyncio.wait_for(asyncio.gather(*(keep_asking() for _ in range(5))), 60)
            assert await document == served("who?", DOCUMENT)
        return asked

    assert 1 <= asyncio.run(ask()) <= 60  # at most one of each between two of its six batches


def test_thousands_of_requests_leave_nothing(served: QuestionAnswerer) -> None:
    expected = served("who?", "Ada.")

    async def client(service: AsyncQuestionAnswerer, count: int) -> None:
        for k in range(count):
            if k % 10 == 9:
                task = started(service("who?", "Ada."))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                assert await service("who?", "Ada.") == expected

    async def ask() -> None:
        async with AsyncQuestionAnswerer(served, max_queued=8) as service:
            before = threading.active_count()
            await client(service, 10)
            gc.collect()
            objects = len(gc.get_objects())
            await asyncio.gather(*(client(service, 250) for _ in range(8)))
            assert threading.active_count() == before + 2
            while service.running:  # one that was cancelled
                await asyncio.sleep(0.001)
            assert service.queued == 0
            gc.collect()
            assert len(gc.get_objects()) < objects + 500

    asyncio.run(ask())


def test_a_request_that_failed_does_not_fail_others_before_it_has_left(
    served: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves, finish = threading.Event(), Request.finish

    def finish_late(request: Request[Any]) -> None:
        if request.preparing and request._error is not None:
            leaves.wait(60)
        finish(request)

    monkeypatch.setattr(Request, "finish", finish_late)

    async def ask() -> None:
        with held(served) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=2) as service:
                tasks = [started(service("first?", TEXT))]
                await begun(calls)
                tasks += [started(service("who?", TEXT)), started(service("", TEXT))]
                await all_prepared(service)
                calls.open()
                try:
                    assert await tasks[1] == served("who?", TEXT)
                finally:
                    leaves.set()
                with pytest.raises(InvalidInputError):
                    await tasks[2]
                assert await tasks[0] == served("first?", TEXT)

    asyncio.run(ask())
