"""How an asynchronous answerer ends, and what becomes of it in other loops and processes."""

import asyncio
import gc
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
)
from dynamic_tinybert.serving.call import Call
from dynamic_tinybert.serving.scheduler import Scheduler

from support.held_model import DOCUMENT, TEXT, begun, busy, held, started, workers

pytestmark = pytest.mark.usefixtures("no_worker_stays")


def test_aclose_drains(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(served) as (service, calls, first):
            waiting = [started(service("who?", DOCUMENT)), started(service("who?", TEXT))]
            await asyncio.sleep(0)
            closing = started(service.aclose())
            await asyncio.sleep(0)
            with pytest.raises(ClosedError, match="takes no further requests"):
                await service("who?", TEXT)
            closing.cancel()  # gives up waiting, not closing
            with pytest.raises(asyncio.CancelledError):
                await closing
            again = [started(service.aclose()) for _ in range(2)]
            calls.open()
            await asyncio.gather(*again)
            assert workers() == []
            assert [task.done() for task in (first, *waiting)] == [True] * 3
            assert await asyncio.gather(*waiting) == [served("who?", DOCUMENT), served("who?", TEXT)]
            await service.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("text", [TEXT, DOCUMENT])
def test_aclose_without_draining(served: QuestionAnswerer, text: str) -> None:
    async def ask() -> None:
        with held(served) as (slow, calls):
            service = AsyncQuestionAnswerer(slow, workers=2)
            first = started(service("who?", text))
            await begun(calls)
            waiting = [started(service("who?", TEXT, timeout=60)) for _ in range(3)]
            await asyncio.sleep(0)
            closing = started(service.aclose(drain=False))
            for task in waiting:
                with pytest.raises(ClosedError, match="before it answered this request"):
                    await task
            assert not closing.done()
            calls.open()
            await closing
            if text == TEXT:
                assert await first == served("who?", TEXT)  # its last batch was being run
            else:
                with pytest.raises(ClosedError):
                    await first
            assert calls.rows == [1]  # also of the document

    asyncio.run(ask())


def test_an_answerer_that_was_never_used_closes(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        service = AsyncQuestionAnswerer(served)
        assert workers() == []
        await service.aclose()
        await service.aclose(drain=False)
        with pytest.raises(ClosedError):
            await service("who?", TEXT)

    asyncio.run(ask())


def test_event_loops_one_after_another_and_at_once(served: QuestionAnswerer) -> None:
    service = AsyncQuestionAnswerer(served)
    expected = served("who?", TEXT)

    async def ask() -> object:
        return await asyncio.gather(*(service("who?", TEXT, timeout=60) for _ in range(5)))

    for _ in range(3):
        assert asyncio.run(ask()) == [expected] * 5
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(ask()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[expected] * 5] * 4
    asyncio.run(service.aclose())


def test_an_answerer_that_nobody_closes_ends_its_threads(served: QuestionAnswerer) -> None:
    service = AsyncQuestionAnswerer(served)
    asyncio.run(service("who?", TEXT))
    assert len(workers()) == 2
    threads = workers()
    del service
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert workers() == []


class ClosedInWait(threading.Condition):
    """Closes a scheduler when a thread begins to wait, as the garbage collector may do in that thread."""

    scheduler: Scheduler | None = None

    def wait(self, timeout: float | None = None) -> bool:
        scheduler, self.scheduler = self.scheduler, None
        if scheduler is not None:
            scheduler.close(drain=False)
        return super().wait(timeout)


def test_a_thread_that_closes_its_own_scheduler_while_it_begins_to_wait_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamic_tinybert.serving.scheduler._RECHECK_S", 0.05)
    scheduler = Scheduler(workers=1, max_queued=1)
    scheduler._changed = changed = ClosedInWait()
    changed.scheduler = scheduler
    assert scheduler.submit(Call(lambda: 1)).result(60) == 1
    (thread,) = scheduler._threads
    thread.join(10)
    assert not thread.is_alive()


def run_program(bundle: Path, program: str) -> str:
    begin = f"""
import asyncio, os, pickle, sys
from dynamic_tinybert import AsyncQuestionAnswerer
TEXT = {TEXT!r}
"""
    command = [sys.executable, "-c", begin + program, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_interpreter_ends_although_nobody_closed(served_bundle: Path) -> None:
    program = """
service = AsyncQuestionAnswerer.from_pretrained(sys.argv[1], num_threads=1, workers=3, max_queued=5)
async def main():
    waiting = [asyncio.create_task(service("who?", TEXT * 60)) for _ in range(5)]
    print(await service("who?", TEXT) == service.answerer("who?", TEXT))
asyncio.run(main())
"""
    assert run_program(served_bundle, program) == "True\n"


def test_a_forked_process_has_a_queue_of_its_own(served_bundle: Path) -> None:
    program = """
service = AsyncQuestionAnswerer.from_pretrained(sys.argv[1], num_threads=1)
expected = service.answerer("who?", TEXT)
async def main():
    waiting = [asyncio.create_task(service("who?", TEXT * 60)) for _ in range(20)]
    await asyncio.sleep(0.01)
    child = os.fork()
    if not child:  # the loop's files are the parent's
        try:
            asyncio._set_running_loop(None)
            asyncio.run(in_child())
            os._exit(0)
        finally:
            os._exit(1)
    assert all(await asyncio.gather(*waiting))
    await service.aclose()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent")
async def in_child():
    assert (service.queued, service.running) == (0, 0)
    async with service:
        assert await asyncio.wait_for(service("who?", TEXT), 60) == expected
asyncio.run(main())
"""
    assert run_program(served_bundle, program) == "parent\n"


def test_a_closed_answerer_is_closed_in_a_forked_process(served_bundle: Path) -> None:
    program = """
service = AsyncQuestionAnswerer.from_pretrained(sys.argv[1], num_threads=1)
async def use():
    await service("who?", TEXT)
    await service.aclose()
asyncio.run(use())
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    asyncio.run(asyncio.wait_for(service.aclose(), 30))
"""
    assert run_program(served_bundle, program) == "0\n"


def test_a_pickle_holds_the_answerer_and_the_arguments(served: QuestionAnswerer) -> None:
    async def ask(service: AsyncQuestionAnswerer) -> object:
        async with service:
            return await service("who?", TEXT)

    service = AsyncQuestionAnswerer(served, max_queued=7, workers=3)
    again = pickle.loads(pickle.dumps(service))
    assert (again.max_queued, again.workers) == (7, 3)
    assert asyncio.run(ask(again)) == asyncio.run(ask(service)) == served("who?", TEXT)
