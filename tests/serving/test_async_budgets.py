"""Budgets of an asynchronous answerer: the wait counts, and what waits behind is considered."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert import AsyncQuestionAnswerer, LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.batches import batches_of
from dynamic_tinybert.runtime.common.errors import OverloadedError
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.tasks.question_answering import budgets
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.carrying_out import carry_out
from dynamic_tinybert.serving.jobs import AnswerJob
from dynamic_tinybert.serving.learnt import Price, Slowness

from support.held_model import DOCUMENT, TEXT, Held, all_prepared, begun, busy, held, started
from support.tiny import letter_tokenizer, tiny_bundle

pytestmark = pytest.mark.usefixtures("no_worker_stays")
SECONDS = {"full": 1000.0, "half": 100.0, "fast": 10.0}
"""A thousand times slower than it is, so that nothing depends on how busy the machine is."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budgets")
    letter_tokenizer(folder)
    return tiny_bundle(folder, {"half": LengthConfig((1, 0.7, 0.4)), "fast": LengthConfig((0.6, 0.4, 0.2))})


@pytest.fixture
def answerer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> QuestionAnswerer:
    """Its latency table says SECONDS seconds a window, a thousandth of what it says otherwise."""

    def table(*arguments: object, **options: object) -> LatencyTable:
        return LatencyTable({name: {(length, 1): 1e3 * s for length in (32, 384)} for name, s in SECONDS.items()})

    monkeypatch.setattr(budgets, "measure_latency_table", table)
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=1)
    answerer.latency_table()
    return answerer


@asynccontextmanager
async def occupied(answerer: QuestionAnswerer) -> AsyncIterator[tuple[AsyncQuestionAnswerer, Held, list[str | None]]]:
    """An answerer with a latency table and one worker, which is held; and the configurations of the model's calls."""
    async with busy(answerer) as (service, calls, _):
        service.answerer.latency_table()
        names: list[str | None] = []
        call = calls._call

        def noted(*arguments: object, **options: Any) -> object:  # noqa: ANN401 - the model's arguments
            names.append(options.get("length_config"))
            return call(*arguments, **options)

        calls._call = noted
        yield service, calls, names


def test_the_wait_in_the_queue_counts(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with occupied(answerer) as (service, calls, _):
            sent = time.monotonic()
            waiting = started(service("who?", TEXT, budget_ms=60_000_000))
            await asyncio.sleep(0.2)
            freed = time.monotonic()
            calls.open()
            answer = await waiting
            assert answer["length_config"] == "full"
            assert answer["budget_met"] is True
            assert freed - sent <= answer["ms"] / 1e3 <= time.monotonic() - sent

    asyncio.run(ask())


def test_the_choice_is_made_when_the_model_is_free(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with occupied(answerer) as (service, calls, _):
            budget_ms = 1.25 * 1e6 + 500  # with what is predicted at first for `full`, and half a second
            waiting = started(service("who?", TEXT, budget_ms=budget_ms))
            await asyncio.sleep(0.6)
            calls.open()
            answer = await waiting
            assert answer["length_config"] == "half"
            assert answer["budget_met"] is True

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("limits", "name"),
    [({"budget_ms": 3.2e6}, "half"), ({"budget_ms": 9e6}, "full"), ({"length_config": "full"}, "full")],
)
def test_others_that_wait_are_considered(answerer: QuestionAnswerer, limits: dict[str, Any], name: str) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            slow.latency_table()
            async with AsyncQuestionAnswerer(slow) as service:
                first = started(service("who?", TEXT))
                await begun(calls)
                tasks = [started(service("who?", TEXT, budget_ms=9e6))]
                await asyncio.sleep(0)
                tasks += [started(service("who?", TEXT, **limits)) for _ in range(3)]
                await all_prepared(service)
                assert service.queued == 4
                calls.open()
                answers = await asyncio.gather(first, *tasks)
                assert answers[1]["length_config"] == name
                assert all(answer.get("budget_met", True) for answer in answers)

    asyncio.run(ask())


def test_compiling_a_graph_does_not_count_as_slowness(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        fresh = QuestionAnswerer.from_pretrained(answerer.model.bundle.path, num_threads=1)
        fresh.budgets.adopt(answerer.latency_table())
        async with AsyncQuestionAnswerer(fresh) as service:
            slowness = service._runner.slowness
            at_first = slowness.typical
            await service("who?", TEXT, length_config="half")
            assert slowness.typical == at_first
            await service("who?", TEXT, length_config="half")
            assert slowness.typical < at_first  # much faster than the table says

    asyncio.run(ask())


def test_a_budget_that_began_before_the_call(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer) as service:
            arrived = time.monotonic() - 400
            job = AnswerJob(("who?",), (TEXT,), {"budget_ms": 1.5e6}, arrived)
            answered = await carry_out(service, job)
            assert isinstance(answered, Answered)
            answer = answered.answers[0][0]
            assert answer["length_config"] == "half"
            assert 4e5 < answer["ms"] < 1.1e6
            assert answer["budget_met"] is True

    asyncio.run(ask())


def test_what_cannot_be_answered_in_time_is_refused_at_once_if_it_has_a_timeout(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            slow.latency_table()
            async with AsyncQuestionAnswerer(slow) as service:
                first = started(service("who?", TEXT))
                await begun(calls)
                for text, options in (
                    (TEXT, {"budget_ms": 1e6, "timeout": 9}),
                    (TEXT, {"length_config": "half", "timeout": 90}),
                    (DOCUMENT, {"length_config": "fast", "timeout": 300}),
                ):
                    message = "behind the batch that is being run this request .* even at the fastest length"
                    with pytest.raises(OverloadedError, match=message) as refused:
                        await service("who?", text, **options)
                    assert refused.value.retry_after_s is not None
                assert (service.queued, service.running) == (0, 1)
                accepted = [
                    started(service("who?", TEXT, length_config="half", timeout=4000)),
                    started(service("who?", TEXT, budget_ms=1)),  # without a timeout it is answered
                ]
                await all_prepared(service)
                with pytest.raises(OverloadedError, match="behind the batch that is being run and 2 waiting requests"):
                    await service("who?", TEXT, length_config="fast", timeout=9)
                calls.open()
                answers = await asyncio.gather(first, *accepted)
                assert answers[2]["length_config"] == "fast"
                assert await service("who?", TEXT, budget_ms=1e6, timeout=9)  # nothing else is there

    asyncio.run(ask())


def test_a_document_runs_in_one_configuration(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with occupied(answerer) as (service, calls, names):
            waiting = started(service("who?", DOCUMENT, budget_ms=8e6))
            await begun_and_open(calls)
            assert (await waiting)["length_config"] == "half"
            assert set(names[1:]) == {"half"}
            assert len(names) == 7

    async def begun_and_open(calls: Held) -> None:
        await asyncio.sleep(0)
        calls.let(1)
        await begun(calls)
        calls.open()

    asyncio.run(ask())


def test_budgets_that_are_late_are_no_room_for_others(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        with held(answerer) as (slow, calls):
            slow.latency_table()
            async with AsyncQuestionAnswerer(slow) as service:
                first = started(service("who?", TEXT, length_config="fast"))
                await begun(calls)
                waiting = [started(service("who?", TEXT, budget_ms=8)) for _ in range(20)]  # late, and run all the same
                await all_prepared(service)
                try:
                    with pytest.raises(OverloadedError, match="20 waiting requests"):  # which take 200 s
                        await asyncio.wait_for(service("who?", TEXT, length_config="fast", timeout=150), 20)
                finally:
                    calls.open()
                answers = await asyncio.gather(*waiting, first)
                assert {answer["length_config"] for answer in answers[:-1]} == {"fast"}

    asyncio.run(ask())


def test_a_request_with_much_time_teaches_nothing(answerer: QuestionAnswerer) -> None:
    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer) as service:
            runner = service._runner
            await service("who?", TEXT, length_config="fast")
            before = (runner.lateness.share, [share.share for share in runner.price._shares])
            for _ in range(5):
                await service("who?", TEXT, length_config="fast", timeout=60_000_000)
            assert (runner.lateness.share, [share.share for share in runner.price._shares]) == before
            await service("who?", TEXT, length_config="fast", timeout=60)
            assert runner.lateness.share < before[0]

    asyncio.run(ask())


def test_what_can_be_saved_is_learnt_once_from_each_that_has_a_choice(
    answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[float] = []
    monkeypatch.setattr(Price, "note", lambda own, saved_ms: noted.append(saved_ms))

    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer) as service:
            limits: list[dict[str, Any]] = [{"budget_ms": 9e6}] * 3 + [{"length_config": "full"}] * 3
            await asyncio.gather(*(service("who?", text, **own) for own in limits for text in (TEXT, DOCUMENT)))

    asyncio.run(ask())
    assert len(noted) == 6  # a document has several batches
    assert sorted(noted)[:3] == [990e3] * 3
    assert sorted(noted)[3] > 990e3


def test_each_batch_is_predicted_by_itself(answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[float] = []
    monkeypatch.setattr(Slowness, "learn", lambda own, predicted_ms, measured_ms: learnt.append(predicted_ms))

    async def ask() -> None:
        async with AsyncQuestionAnswerer(answerer) as service:
            await service("who?", TEXT, length_config="half")  # which compiles it
            learnt.clear()
            await service("who?", DOCUMENT, length_config="half")

    asyncio.run(ask())
    table = answerer.latency_table()
    lengths = answerer.plan(["who?"], [DOCUMENT]).lengths
    batches = [[lengths[i] for i in batch] for batch in batches_of(lengths, 8)]
    assert learnt == [table.predict("half", [(max(batch), len(batch))]) for batch in batches]
    assert len(set(learnt)) > 1
