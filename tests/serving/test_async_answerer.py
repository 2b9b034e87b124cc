"""An asynchronous answerer gives the answers of the synchronous one."""

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    DeadlineExceededError,
    InvalidInputError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE

from support.held_model import DOCUMENT, DOCUMENT_ROWS, TEXT, held, started, workers

pytestmark = pytest.mark.usefixtures("no_worker_stays")

OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"length_config": "half"},
    {"length_config": (1, 0.7, 0.2), "max_answer_len": 4},
    {"max_seq_len": 40, "doc_stride": 7, "batch_size": 3},
    {"handle_impossible_answer": True, "align_to_words": False, "merge": "text", "topk": 2},
    {"padding": "longest", "num_workers": 3},
]


def test_answers_are_those_of_the_synchronous_answerer(served: QuestionAnswerer) -> None:
    contexts = [TEXT * k for k in (1, 2, 3, 8, 20)] + ["Ada.", "É ß 日本 🙂 in 1833"]
    calls = [(f"who {'met ' * k}whom?", context, options) for k, context in enumerate(contexts) for options in OPTIONS]

    async def ask() -> list[Any]:
        async with AsyncQuestionAnswerer(served, workers=3) as service:
            return await asyncio.gather(*(service(q, c, **o) for q, c, o in calls))

    # Ratios without a name run in the elastic graph, which in FP32 has other last bits than a specialised one.
    elastic = QuestionAnswerer.from_pretrained(served.model.bundle.path, num_threads=1, elastic=True)
    unnamed = [isinstance(options.get("length_config"), tuple) for _, _, options in calls]
    assert asyncio.run(ask()) == [
        (elastic if other else served)(q, c, **o) for other, (q, c, o) in zip(unnamed, calls, strict=True)
    ]


def test_every_form_of_a_call_gives_the_same(served: QuestionAnswerer) -> None:
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
        async with AsyncQuestionAnswerer(served) as service:
            return [await form(service) for form in forms]

    assert asyncio.run(ask()) == [form(served) for form in forms]


def test_the_document_of_these_tests_has_40_windows(served: QuestionAnswerer) -> None:
    with held(served) as (slow, calls):
        calls.open()
        assert slow("who?", DOCUMENT) == served("who?", DOCUMENT)
    assert calls.rows == DOCUMENT_ROWS
    assert sum(calls.rows) == 40


def test_options_of_a_call_are_all_taken(served: QuestionAnswerer) -> None:
    names = set(inspect.signature(type(served).__call__).parameters) - {"self"}
    unknown: dict[str, Any] = {"top_q": 1}
    given: dict[str, Any] = dict.fromkeys(names - {"question", "context"})

    async def ask() -> object:
        async with AsyncQuestionAnswerer(served) as service:
            with pytest.raises(TypeError, match="unexpected keyword argument 'top_q'"):
                await service("who?", TEXT, **unknown)
            return await service("who?", TEXT, **given)

    assert asyncio.run(ask()) == served("who?", TEXT)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True, [], 10**400])
def test_bad_timeouts(served: QuestionAnswerer, value: object) -> None:
    given: dict[str, Any] = {"timeout": value}

    async def ask() -> None:
        async with AsyncQuestionAnswerer(served) as service:
            with pytest.raises(InvalidInputError, match=r"timeout must be (a finite number|more than 0)"):
                await service("who?", TEXT, **given)
            with pytest.raises(InvalidInputError, match="timeout and deadline"):
                await service("who?", TEXT, timeout=1, deadline=1)
            with pytest.raises(DeadlineExceededError):
                await service.answer_batch("who?", TEXT, deadline=time.monotonic() - 1)
            assert (service.queued, service.running) == (0, 0)

    asyncio.run(ask())


def test_the_loop_goes_on_while_texts_are_cut_and_run(served: QuestionAnswerer) -> None:
    async def ask() -> int:
        ticks = 0
        async with AsyncQuestionAnswerer(served) as service:
            answer = started(service.answer_batch(["who?"] * 30, DOCUMENT))
            while not answer.done():
                await asyncio.sleep(0.001)
                ticks += 1
            assert len(answer.result()) == 30
        return ticks

    assert asyncio.run(ask()) > 20


def test_errors_concern_only_their_request(served: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panic(*_: object, **options: object) -> object:
        raise Panic("as tokenizers may")

    wrong: tuple[Any, ...] = ("who?", 7)

    async def ask() -> None:
        async with AsyncQuestionAnswerer(served, workers=1) as service:
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
                assert results[0] == served("who?", TEXT)
                kinds = [InvalidInputError, LengthConfigError, *[InvalidInputError] * 6]
                assert [type(result) for result in results[1:]] == kinds
            with monkeypatch.context() as patch:
                patch.setattr(type(served.model), "__call__", panic)
                with pytest.raises(Panic):
                    await service("who?", TEXT)
            assert len(workers()) == 1
            assert await service("who?", TEXT) == served("who?", TEXT)

    asyncio.run(ask())


def test_workers_go_by_the_calls_that_the_model_runs_at_once(served_bundle: Path, served: QuestionAnswerer) -> None:
    assert AsyncQuestionAnswerer(served).workers == 2
    several = AsyncQuestionAnswerer.from_pretrained(served_bundle, num_threads=2, num_streams=2)
    assert several.workers == several.answerer.model.parallel_requests + 1
    assert PIPELINE.batch_size == 8  # the batches that tests here expect


@pytest.mark.parametrize("option", ["max_queued", "workers"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_bad_numbers(served: QuestionAnswerer, option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{option} must be an int of at least 1"):
        AsyncQuestionAnswerer(served, **{option: value})
