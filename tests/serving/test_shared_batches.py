"""Requests that share a batch get the answers that they would get alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.batches import padded_length
from dynamic_tinybert.runtime.common.errors import InferenceError
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.tasks.question_answering import budgets
from dynamic_tinybert.serving import questions, sharing
from dynamic_tinybert.serving.pressure import Waiting, choose_under_pressure
from dynamic_tinybert.serving.questions import Questions
from dynamic_tinybert.serving.sharing import SharedBatch

from support.held_model import Held, all_prepared, begun, held, started

pytestmark = pytest.mark.usefixtures("no_worker_stays")

TEXTS = [
    "Ada Lovelace was born in London, and met Charles Babbage in June of 1833.",
    "The lighthouse of the harbour was built by a company from Bristol in 1871.",
    "The river rises in the mountains of the north and flows to the sea.",
    "The bridge, which is 240 metres long, was opened on the first of May.",
]
QUESTION = "When was that, and where?"
"""With each of the texts it has 25 to 32 tokens, so that four requests fill a batch for one thread."""


@pytest.fixture(scope="module")
def embedded() -> QuestionAnswerer:
    """Of the embedded bundle, an INT8 one."""
    return QuestionAnswerer.from_pretrained(num_threads=2)


async def asked(
    slow: QuestionAnswerer,
    calls: Held,
    options: list[dict[str, Any]],
    first: str | tuple[float, ...] = (1, 1, 1, 1, 1, 0.5),
) -> list[Any]:
    """What requests give that have all waited for a turn of the model at `first`, by default in the elastic graph."""
    async with AsyncQuestionAnswerer(slow) as service:
        held_up = started(service(QUESTION, TEXTS[0] * 8, length_config=first))
        await begun(calls)
        tasks = [started(service(QUESTION, TEXTS[k % len(TEXTS)], **each)) for k, each in enumerate(options)]
        await all_prepared(service)
        calls.open()
        results = await asyncio.gather(held_up, *tasks, return_exceptions=True)
        assert (service.queued, service.running) == (0, 0)
        return results[1:]


@pytest.mark.parametrize(
    ("configs", "rows"),
    [
        (["full"] * 4, [4]),
        (["fast"] * 6, [4, 2]),
        (["fast", "balanced", "accurate", "fast"], [4]),
        (["full", "fast", "full", "fast", "full"], [3, 2]),  # `full` computes logits in another way
        ([(1, 1, 0.9, 0.6, 0.5, 0.3), "fast", (1, 1, 0.8, 0.5, 0.4, 0.2), "balanced"], [4]),
    ],
)
def test_short_requests_share_a_batch_and_get_what_they_get_alone(
    embedded: QuestionAnswerer, configs: list[Any], rows: list[int]
) -> None:
    with held(embedded) as (slow, calls):
        options = [{"length_config": config} for config in configs]
        assert {padded_length(max(embedded.plan(QUESTION, text).lengths)) for text in TEXTS} == {32}
        answers = asyncio.run(asked(slow, calls, options))
        assert calls.rows[1:] == rows
    expected = [embedded(QUESTION, TEXTS[k % len(TEXTS)], length_config=config) for k, config in enumerate(configs)]
    assert answers == expected


def test_different_configurations_share_a_batch_as_soon_as_the_elastic_graph_is_there() -> None:
    configs = ["fast", "balanced", "accurate", "fast"]
    for compiled, rows in ((False, [2, 1, 1]), (True, [4])):
        answerer = QuestionAnswerer.from_pretrained(num_threads=2)
        if compiled:  # as a worker does before it takes requests
            answerer.model([[0]], length_configs=[None])
        with held(answerer) as (slow, calls):
            options: list[dict[str, Any]] = [{"length_config": config} for config in configs]
            answers = asyncio.run(asked(slow, calls, options, first="full"))
            assert calls.rows[1:] == rows
        assert answers == [answerer(QUESTION, text, **each) for text, each in zip(TEXTS, options, strict=True)]


def test_an_error_in_a_shared_batch_hits_only_its_own_request(embedded: QuestionAnswerer) -> None:
    with held(embedded) as (slow, calls):
        bad = embedded.plan(QUESTION, TEXTS[2]).windows[0][0].input_ids
        call = calls._call

        def fails(*arguments: object, **options: Any) -> object:  # noqa: ANN401 - the model's arguments
            if any(row[: len(bad)].tolist() == list(bad) for row in options["input_ids"]):
                raise InferenceError("as if this row broke the graph")
            return call(*arguments, **options)

        calls._call = fails
        answers = asyncio.run(asked(slow, calls, [{}] * 4))
        assert calls.rows[1:] == [4, 1, 1, 1, 1]
    assert isinstance(answers[2], InferenceError)
    assert [answers[k] for k in (0, 1, 3)] == [embedded(QUESTION, TEXTS[k]) for k in (0, 1, 3)]


def test_a_cancelled_request_does_not_take_others_with_it(embedded: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(embedded) as (slow, calls):
            async with AsyncQuestionAnswerer(slow) as service:
                tasks = [started(service(QUESTION, TEXTS[0] * 8))]
                await begun(calls)
                tasks += [started(service(QUESTION, text)) for text in TEXTS]
                await all_prepared(service)
                calls.let(1)
                await begun(calls)  # of the four
                tasks[2].cancel()
                await asyncio.gather(tasks[2], return_exceptions=True)
                calls.open()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                assert answers[1] == embedded(QUESTION, TEXTS[0])
                assert answers[3:] == [embedded(QUESTION, text) for text in TEXTS[2:]]
                assert calls.rows[1:] == [4]

    asyncio.run(ask())


def test_budgets_share_batches_too(embedded: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LatencyTable({name: {(32, 1): 1.0, (384, 1): 10.0} for name in embedded.model.length_configs})
    monkeypatch.setattr(budgets, "measure_latency_table", lambda *arguments, **options: table)
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
    fastest = "full"  # of equal times the one that loses nothing
    with held(embedded) as (slow, calls):
        del calls.rows[:]
        options: list[dict[str, Any]] = [{"budget_ms": 1e-3}, {"budget_ms": 1e-3}, {"length_config": fastest}]
        answers = asyncio.run(asked(slow, calls, options))
        assert calls.rows[1:] == [3]
    for k, answer in enumerate(answers[:2]):
        assert answer.pop("length_config") == fastest
        assert answer.pop("budget_met") is False
        assert answer.pop("ms") > 0
        assert answer == embedded(QUESTION, TEXTS[k], length_config=fastest)


def test_what_has_room_in_a_batch(embedded: QuestionAnswerer, served: QuestionAnswerer) -> None:
    batch = SharedBatch(embedded.model, 64, 1, "fast", mixed=True)  # with two threads, for 256 tokens
    assert batch.has_room(64, 3)
    assert batch.has_room(48, 3)
    assert not batch.has_room(64, 4)
    assert not batch.has_room(40, 1)  # would be padded too much
    assert not batch.has_room(72, 1)  # would pad the others
    assert not batch.permits("full")
    assert not batch.add(1, "full")
    assert batch.add(2, "balanced")
    assert batch.has_room(64, 1)
    assert not batch.has_room(64, 2)
    unmixed = SharedBatch(embedded.model, 64, 1, "fast", mixed=False)
    assert not unmixed.add(1, "balanced")
    assert unmixed.add(1, "fast")
    assert not SharedBatch(embedded.model, 136, 1, "fast", mixed=True).has_room(136, 1)
    assert not SharedBatch(embedded.model, 8, 8, "fast", mixed=True).has_room(8, 1)
    assert not SharedBatch(served.model, 8, 1, "full", mixed=True).has_room(8, 1)  # FP32: last bits depend on the batch


def test_what_depends_on_the_model_alone_is_computed_once(
    embedded: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    SharedBatch(embedded.model, 8, 1, "full", mixed=True)
    monkeypatch.setattr(sharing, "default_threads", lambda: pytest.fail("reads files again, for each batch"))
    monkeypatch.setattr(sharing, "kept_multiple", lambda _: pytest.fail("reads files again, for each batch"))
    assert SharedBatch(embedded.model, 8, 1, "full", mixed=True).has_room(8, 1)


@pytest.mark.parametrize("budget_ms", [1e-3, 1e9, 200.0])
def test_the_search_for_companions_stays_small_however_many_wait(
    embedded: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch, budget_ms: float
) -> None:
    """Each that waits is looked at once in a turn, and for few of them a configuration is chosen."""
    times = {"full": 10.0, "accurate": 8.0, "balanced": 7.0, "fast": 5.0}
    table = LatencyTable({name: {(32, 1): ms, (384, 1): 10 * ms} for name, ms in times.items()})
    monkeypatch.setattr(budgets, "measure_latency_table", lambda *arguments, **options: table)
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
    turns: list[tuple[int, int, int]] = []
    choices, looks = list[object](), list[object]()
    choose, look, search = choose_under_pressure, Questions.waiting, Questions.companions

    def chosen(*arguments: Any) -> str:  # noqa: ANN401 - those of the function
        choices.append(arguments)
        return choose(*arguments)

    def seen(own: Questions) -> Waiting:
        looks.append(own)
        return look(own)

    def companions(own: Questions, waiting: Sequence[Any]) -> Sequence[int]:
        choices.clear()
        looks.clear()
        places = search(own, waiting)
        turns.append((len(waiting), len(choices), len(looks)))
        return places

    monkeypatch.setattr(questions, "choose_under_pressure", chosen)
    monkeypatch.setattr(Questions, "waiting", seen)
    monkeypatch.setattr(Questions, "companions", companions)
    with held(embedded) as (slow, calls):
        asyncio.run(asked(slow, calls, [{"budget_ms": budget_ms}] * 60))
    assert max(waiting for waiting, _, _ in turns) >= 50
    for waiting, choices_made, looked in turns:
        assert choices_made <= 8 + questions._MOST_REFUSED  # at most eight rows
        assert looked == waiting + 1
