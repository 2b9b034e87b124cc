"""A model that a test holds in its calls, and an asynchronous answerer that it keeps busy."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.serving.service import AsyncService

Result = TypeVar("Result")
TEXT = "Ada was born in London. She met Charles in 1833! "
DOCUMENT = TEXT * 59
DOCUMENT_ROWS = [1, 8, 8, 8, 8, 7]
"""Windows in each of the batches of DOCUMENT; the last window is shorter, and batches are sorted by length."""


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

        @property
        def has_elastic_graph(self) -> bool:
            return bool(model.has_elastic_graph)

        def is_compiled(self, *arguments: Any) -> bool:  # noqa: ANN401 - the model's arguments
            return bool(model.is_compiled(*arguments))

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


async def all_prepared(service: AsyncService) -> None:
    """Wait until all requests that tasks have begun are prepared, so that the next turn considers them."""
    await asyncio.sleep(0)
    while not all(request.prepared for request in list(service._scheduler._waiting)):
        await asyncio.sleep(0.001)


def started(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    return asyncio.create_task(coroutine)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dynamic-tinybert-worker")]
