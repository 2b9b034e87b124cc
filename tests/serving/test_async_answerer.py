"""An asynchronous answerer gives the answers of the synchronous one, by its deadline or not at all."""

import asyncio
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidInputError,
    LengthConfigError,
    OverloadedError,
)
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE

from support.tiny import letter_tokenizer, tiny_bundle

Result = TypeVar("Result")
TEXT = "Ada was born in London. She met Charles in 1833! "
DOCUMENT = TEXT * 59
DOCUMENT_ROWS = [1, 8, 8, 8, 8, 7]
"""Windows in each of the batches of DOCUMENT; the last window is shorter, and batches are sorted by length."""
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"length_config": "half"},
    {"length_config": (1, 0.7, 0.2), "max_answer_len": 4},
    {"max_seq_len": 40, "doc_stride": 7, "batch_size": 3},
    {"handle_impossible_answer": True, "align_to_words": False, "merge": "text", "topk": 2},
    {"padding": "longest", "num_workers": 3},
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    letter_tokenizer(folder)
    return tiny_bundle(folder, {"half": LengthConfig((1, 0.5, 0.3))})


@pytest.fixture(scope="module")
def answerer(bundle: Path) -> QuestionAnswerer:
    return QuestionAnswerer.from_pretrained(bundle, num_threads=1)


class Held:
    """A model's calls, each of which can be kept from going on."""

    def __init__(self, answerer: QuestionAnswerer) -> None:
        self.rows: list[int] = []  # of each call, when it began
        self.began = threading.Semaphore(0)
        self._call = answerer.model.__call__
        self._gate = threading.Semaphore(0)
        self._open = False

    def __call__(self, *arguments: object, **options: Any) -> object:  # noqa: ANN401 - the model's arguments
        self.rows.append(len(options["input_ids"]))
        self.began.release()
        if not self._open:
            assert self._gate.acquire(timeout=60)
        return self._call(*arguments, **options)

    def let(self, calls: int) -> None:
        """Let some calls go on."""
        self._gate.release(calls)

    def open(self) -> None:
        """Let all calls go on."""
        self._open = True
        self._gate.release(1000)


@contextmanager
def held(answerer: QuestionAnswerer) -> Iterator[tuple[QuestionAnswerer, Held]]:
    """An answerer whose model does not answer before it is let."""
    model = answerer.model

    class Slow(type(model)):  # type: ignore[misc]
        def __call__(self, *arguments: object, **options: Any) -> object:  # noqa: ANN401 - the model's arguments
            return calls(*arguments, **options)

    slow = Slow.from_pretrained(model.bundle.path, num_threads=1)
    calls = Held(answerer)
    try:
        yield QuestionAnswerer(slow), calls
    finally:
        calls.open()


@asynccontextmanager
async def busy(
    answerer: QuestionAnswerer, **options: int
) -> AsyncIterator[tuple[AsyncQuestionAnswerer, Held, asyncio.Task[Any]]]:
    """An answerer of one worker, which is held in the first call of the model, for the task that comes with it."""
    with held(answerer) as (slow, calls):
        service = AsyncQuestionAnswerer(slow, workers=1, **options)
        first = asyncio.create_task(service("first?", TEXT))
        await begun(calls)
        try:
            yield service, calls, first
        finally:
            calls.open()
            await service.aclose()
            await asyncio.gather(first, return_exceptions=True)


async def begun(calls: Held) -> None:
    """Wait for the begin of a call of the model."""
    while not calls.began.acquire(blocking=False):
        await asyncio.sleep(0.001)


def started(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    return asyncio.create_task(coroutine)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dynamic-tinybert-worker")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert workers() == []


def test_answers_are_those_of_the_synchronous_answerer(answerer: QuestionAnswerer) -> None:
    contexts = [TEXT * k for k in (1, 2, 3, 8, 20)] + ["Ada.", "É ß 日本 🙂 in 1833"]
    calls = [(f"who {'met ' * k}whom?", context, options) for k, context in enumerate(contexts) for options in OPTIONS]

    async def ask() -> list[Any]:
        async with AsyncQuestionAnswerer(answerer, workers=3) as service:
            return await asyncio.gather(*(service(q, c, **o) for q, c, o in calls))

    assert asyncio.run(ask()) == [answerer(q, c, **o) for q, c, o in calls]


def test_every_form_of_a_call_gives_the_same(answerer: QuestionAnswerer) -> None:
    one = {"question": "who?", "context": TEXT}
    forms: list[Callable[[Any], Any]] = [
        lambda qa: qa(**one),
        lambda qa: qa(one),
        lambda qa: qa(data=one),
        lambda qa: qa(X=[one, one], top_k=2),
        lambda qa: qa(["who?", "when?"], TEXT),
        lambda qa: qa(question=["who?", "when?"], context=[TEXT, DOCUMENT], topk=2),
        lambda qa: qa.answer_batch(["who?", "when?"], TEXT, top_k=2, length_config="half"),
        lambda qa: qa.answer_batch(one),
        lambda qa: qa.answer_batch([], TEXT),
    ]

    async def ask() -> list[Any]:
        async with AsyncQuestionAnswerer(answerer) as service:
            return [await form(service) for form in forms]

    assert asyncio.run(ask()) == [form(answerer) for form in forms]


def test_the_document_of_these_tests_has_40_windows(answerer: QuestionAnswerer) -> None:
    with held(answerer) as (slow, calls):
        calls.open()
        assert slow("who?", DOCUMENT) == answerer("who?", DOCUMENT)
    assert calls.rows == DOCUMENT_ROWS
    assert sum(calls.rows) == 40


def test_options_of_a_call_are_all_taken(answerer: QuestionAnswerer) -> None:
    names = set(inspect.signature(type(answerer).__call__).parameters) - {"self"}
    unknown: dict[str, Any] = {"top_q": 1}
    given: dict[str, Any] = dict.fromkeys(names - {"question", "context"})

    async def ask() -> object:
        async with AsyncQuestionAnswerer(answerer) as service:
            with pytest.raises(TypeError, match="unexpected keyword argument 'top_q'"):
                await service("who?", TEXT, **unknown)
            return await service("who?", TEXT, **given)

    assert asyncio.run(ask()) == answerer("who?", TEXT)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(answerer, max_queued=3) as (service, calls, first):
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
            assert await asyncio.gather(*waiting) == [answerer("who?", TEXT)] * 4
            assert await service("who?", TEXT) == answerer("who?", TEXT)

    asyncio.run(ask())


@pytest.mark.parametrize("by", ["timeout", "deadline"])
def test_a_request_whose_deadline_passes_while_it_waits_is_not_run(answerer: QuestionAnswerer, by: str) -> None:
    async def ask() -> None:
        async with busy(answerer) as (service, calls, first):
            limit: dict[str, Any] = {by: 0.05 if by == "timeout" else time.monotonic() + 0.05}
            late = started(service("late?", TEXT, **limit))
            punctual = started(service("who?", TEXT, timeout=60))
            with pytest.raises(DeadlineExceededError, match=r"not answered by its deadline, 0\.0\d* s after"):
                await asyncio.wait_for(late, 10)  # while the model is still held
            assert service.queued == 1
            calls.open()
            assert await punctual == answerer("who?", TEXT)
            assert await first == answerer("first?", TEXT)
            assert len(calls.rows) == 2

    asyncio.run(ask())


def test_a_worker_finds_the_deadline_passed_although_the_loop_is_busy(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(answerer) as (service, calls, first):
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


def test_a_deadline_ends_a_document_between_its_windows(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=1) as service:
                document = started(service("who?", DOCUMENT, timeout=0.2))
                await begun(calls)
                with pytest.raises(DeadlineExceededError):
                    await document
                calls.open()
                assert await service("who?", TEXT) == answerer("who?", TEXT)
            assert calls.rows == [*DOCUMENT_ROWS[:1], 1]

    asyncio.run(ask())


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True, [], 10**400])
def test_bad_timeouts(answerer: QuestionAnswerer, value: object) -> None:
    given: dict[str, Any] = {"timeout": value}

    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer) as service:
            with pytest.raises(InvalidInputError, match=r"timeout must be (a finite number|more than 0)"):
                await service("who?", TEXT, **given)
            with pytest.raises(InvalidInputError, match="timeout and deadline"):
                await service("who?", TEXT, timeout=1, deadline=1)
            with pytest.raises(DeadlineExceededError):
                await service.answer_batch("who?", TEXT, deadline=time.monotonic() - 1)
            assert (service.queued, service.running) == (0, 0)

    asyncio.run(ask())


def test_a_cancelled_request_frees_its_place(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(answerer, max_queued=2) as (service, calls, _):
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
            assert await other == answerer("who?", TEXT)
            assert await waiting[1] == answerer("1?", TEXT)
            assert len(calls.rows) == 3

    asyncio.run(ask())


def test_a_request_that_is_cancelled_while_it_runs_takes_no_further_batch(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            async with AsyncQuestionAnswerer(slow, workers=1) as service:
                document = started(service("who?", DOCUMENT))
                await begun(calls)
                document.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await document
                calls.open()
                assert await service("who?", TEXT) == answerer("who?", TEXT)
                assert (service.queued, service.running) == (0, 0)
            assert calls.rows == [*DOCUMENT_ROWS[:1], 1]

    asyncio.run(ask())


def test_a_long_document_starves_nobody_and_is_not_starved(answerer: QuestionAnswerer) -> None:
    order: list[str] = []

    async def ask() -> None:
        with held(answerer) as (slow, calls):
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
                assert await asyncio.gather(*short) == [answerer("who?", TEXT)] * 50
                assert not document.done()
                assert await document == answerer("who?", DOCUMENT)
            assert calls.rows == DOCUMENT_ROWS[:1] + 50 * [1] + DOCUMENT_ROWS[1:]

    asyncio.run(ask())
    assert order == ["short"] * 50 + ["document"]


def test_a_document_ends_although_short_questions_never_do(answerer: QuestionAnswerer) -> None:
    async def ask() -> int:
        asked = 0
        async with AsyncQuestionAnswerer(answerer, workers=1) as service:
            document = started(service("who?", DOCUMENT))

            async def keep_asking() -> None:
                nonlocal asked
                while not document.done():
                    await service("who?", TEXT)
                    asked += 1

            await asyncio.wait_for(asyncio.gather(*(keep_asking() for _ in range(5))), 60)
            assert await document == answerer("who?", DOCUMENT)
        return asked

    assert 20 <= asyncio.run(ask()) <= 60  # at most one of each between two of its six batches


def test_the_loop_goes_on_while_texts_are_cut_and_run(answerer: QuestionAnswerer) -> None:
    async def ask() -> int:
        ticks = 0
        async with AsyncQuestionAnswerer(answerer) as service:
            answer = started(service.answer_batch(["who?"] * 30, DOCUMENT))
            while not answer.done():
                await asyncio.sleep(0.001)
                ticks += 1
            assert len(answer.result()) == 30
        return ticks

    assert asyncio.run(ask()) > 20


def test_aclose_drains(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with busy(answerer) as (service, calls, first):
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
            assert await asyncio.gather(*waiting) == [answerer("who?", DOCUMENT), answerer("who?", TEXT)]
            await service.aclose()

    asyncio.run(ask())


def test_aclose_without_draining(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            service = AsyncQuestionAnswerer(slow, workers=2)
            one, document = started(service("who?", TEXT)), started(service("who?", DOCUMENT))
            await begun(calls)
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
            assert await one == answerer("who?", TEXT)  # its last batch was being run
            with pytest.raises(ClosedError):
                await document
            assert calls.rows == [1, *DOCUMENT_ROWS[:1]]

    asyncio.run(ask())


def test_an_answerer_that_was_never_used_closes(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        service = AsyncQuestionAnswerer(answerer)
        assert workers() == []
        await service.aclose()
        await service.aclose(drain=False)
        with pytest.raises(ClosedError):
            await service("who?", TEXT)

    asyncio.run(ask())


def test_errors_concern_only_their_request(answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panic(*_: object, **options: object) -> object:
        raise Panic("as tokenizers may")

    wrong: tuple[Any, ...] = ("who?", 7)

    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer, workers=1) as service:
            for _ in range(3):
                results = await asyncio.gather(
                    service("who?", TEXT),
                    service("", TEXT),
                    service("who?", TEXT, length_config="none"),
                    service(*wrong),
                    service(["who?", "\ud800"], TEXT),
                    service("who?", TEXT, top_k=0),
                    service.answer_batch(["a", "b"], ["c"]),
                    service("who?", TEXT, data={"question": "who?", "context": TEXT}),
                    service(),
                    return_exceptions=True,
                )
                assert results[0] == answerer("who?", TEXT)
                kinds = [InvalidInputError, LengthConfigError, *[InvalidInputError] * 6]
                assert [type(result) for result in results[1:]] == kinds
            with monkeypatch.context() as patch:
                patch.setattr(type(answerer.model), "__call__", panic)
                with pytest.raises(Panic):
                    await service("who?", TEXT)
            assert len(workers()) == 1
            assert await service("who?", TEXT) == answerer("who?", TEXT)

    asyncio.run(ask())


def test_event_loops_one_after_another_and_at_once(answerer: QuestionAnswerer) -> None:
    service = AsyncQuestionAnswerer(answerer)
    expected = answerer("who?", TEXT)

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


def test_ten_thousand_requests_leave_nothing(answerer: QuestionAnswerer) -> None:
    expected = answerer("who?", "Ada.")

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
        async with AsyncQuestionAnswerer(answerer, max_queued=8) as service:
            before = threading.active_count()
            await client(service, 10)
            gc.collect()
            objects = len(gc.get_objects())
            await asyncio.gather(*(client(service, 1250) for _ in range(8)))
            assert threading.active_count() == before + 2
            while service.running:  # one that was cancelled
                await asyncio.sleep(0.001)
            assert service.queued == 0
            gc.collect()
            assert len(gc.get_objects()) < objects + 500

    asyncio.run(ask())


def test_an_answerer_that_nobody_closes_ends_its_threads(answerer: QuestionAnswerer) -> None:
    service = AsyncQuestionAnswerer(answerer)
    asyncio.run(service("who?", TEXT))
    assert len(workers()) == 2
    threads = workers()
    del service
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert workers() == []


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


def test_the_interpreter_ends_although_nobody_closed(bundle: Path) -> None:
    program = """
service = AsyncQuestionAnswerer.from_pretrained(sys.argv[1], num_threads=1, workers=3, max_queued=5)
async def main():
    waiting = [asyncio.create_task(service("who?", TEXT * 60)) for _ in range(5)]
    print(await service("who?", TEXT) == service.answerer("who?", TEXT))
asyncio.run(main())
"""
    assert run_program(bundle, program) == "True\n"


def test_a_forked_process_has_a_queue_of_its_own(bundle: Path) -> None:
    program = """
service = AsyncQuestionAnswerer.from_pretrained(sys.argv[1], num_threads=1)
expected = service.answerer("who?", TEXT)
async def main():
    waiting = [asyncio.create_task(service("who?", TEXT * 60)) for _ in range(20)]
    await asyncio.sleep(0.01)
    child = os.fork()
    if not child:
        return
    assert all(await asyncio.gather(*waiting))
    await service.aclose()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent")
    raise SystemExit
async def in_child():
    assert (service.queued, service.running) == (0, 0)
    async with service:
        assert await asyncio.wait_for(service("who?", TEXT), 60) == expected
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
asyncio._set_running_loop(None)
asyncio.run(in_child())
os._exit(0)
"""
    assert run_program(bundle, program) == "parent\n"


def test_a_closed_answerer_is_closed_in_a_forked_process(bundle: Path) -> None:
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
    assert run_program(bundle, program) == "0\n"


def test_a_pickle_holds_the_answerer_and_the_arguments(answerer: QuestionAnswerer) -> None:
    async def ask(service: AsyncQuestionAnswerer) -> object:
        async with service:
            return await service("who?", TEXT)

    service = AsyncQuestionAnswerer(answerer, max_queued=7, workers=3)
    again = pickle.loads(pickle.dumps(service))
    assert (again.max_queued, again.workers) == (7, 3)
    assert asyncio.run(ask(again)) == asyncio.run(ask(service)) == answerer("who?", TEXT)


def test_workers_go_by_the_calls_that_the_model_runs_at_once(bundle: Path, answerer: QuestionAnswerer) -> None:
    assert AsyncQuestionAnswerer(answerer).workers == 2
    several = AsyncQuestionAnswerer.from_pretrained(bundle, num_threads=2, num_streams=2)
    assert several.workers == several.answerer.model.parallel_requests + 1
    assert PIPELINE.batch_size == 8  # the batches that tests here expect


@pytest.mark.parametrize("option", ["max_queued", "workers"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_bad_numbers(answerer: QuestionAnswerer, option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{option} must be an int of at least 1"):
        AsyncQuestionAnswerer(answerer, **{option: value})
