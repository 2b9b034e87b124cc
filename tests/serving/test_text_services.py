"""Texts are classified and documents ranked asynchronously: a batch in a turn, with the results of direct calls."""

import asyncio
import pickle
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert import AsyncReranker, AsyncTextClassifier, QuestionAnswerer, Reranker, TextClassifier
from dynamic_tinybert.runtime.bundles.files import size_and_digest
from dynamic_tinybert.runtime.common.errors import (
    BundleFormatError,
    ClosedError,
    DeadlineExceededError,
    InvalidInputError,
    LengthConfigError,
    OverloadedError,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import sigmoid
from dynamic_tinybert.serving.carrying_out import carry_out, model_facts
from dynamic_tinybert.serving.jobs import AnswerJob, ClassifyJob, ExplainJob, Job, LogitsJob, RankJob
from dynamic_tinybert.serving.tasks import service_for

from support.held_model import all_prepared
from support.manifests import rewrite_manifest
from support.rankings import put_heads, random_head
from support.text_services import DOCUMENTS, QUERY, held_graphs, labels_bundle, loaded, reranker_bundle

pytestmark = pytest.mark.usefixtures("no_worker_stays")
MANY = [f"{letter} was in {number}" for letter in "abcdefgh" for number in "123"]  # three batches of one length
IDS = np.array([[2, 40, 41, 3, 50, 51, 3], [2, 42, 3, 60, 61, 3, 0]])
MASK = (IDS != 0).astype(np.int64)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return Reranker(loaded(reranker_bundle(tmp_path_factory.mktemp("reranker") / "b")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    return TextClassifier(loaded(labels_bundle(tmp_path_factory.mktemp("classifier") / "b")))


def steps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dynamic-tinybert-steps"]


async def no_steps_stay() -> None:
    async with asyncio.timeout(60):
        while steps():
            await asyncio.sleep(0.001)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    async def checked() -> object:
        result = await coroutine
        await no_steps_stay()
        return result

    return asyncio.run(checked())


def test_results_are_those_of_direct_calls(reranker: Reranker, classifier: TextClassifier) -> None:
    async def ask() -> None:
        async with AsyncReranker(reranker) as service:
            for options in ({}, {"top_n": 2, "return_documents": True}, {"length_config": "half", "max_seq_len": 16}):
                direct = reranker.rank(QUERY, DOCUMENTS, **options)
                assert await service.rank(QUERY, list(DOCUMENTS), **options) == direct
            pairs = [(QUERY, document) for document in DOCUMENTS]
            np.testing.assert_array_equal(await service.predict(pairs), reranker.predict(pairs))
            assert await service("a b") == TextClassifier(reranker.model)("a b")
            ranked = await service.ranked(QUERY, DOCUMENTS, length_config="half")
            assert ranked.length_config == "half"
            assert ranked.tokens == ranked.kept[0] > ranked.kept[1] == ranked.kept[2]  # the last one selects nothing
        async with AsyncTextClassifier(classifier) as service:
            several = ["a b c", {"text": "who", "text_pair": "the a"}]
            assert await service("a b c") == classifier("a b c")
            assert await service(several, top_k=None, length_config="half") == classifier(
                several, top_k=None, length_config="half"
            )
            assert await service.classify_batch(several) == classifier.classify_batch(several)
            assert (await service.classified(several)).length_config == "full"

    run(ask())


def test_documents_leave_by_their_words_but_not_after_layers(tmp_path: Path) -> None:
    """A service counts the windows that its turns run; a direct call of the reranker has the same results."""
    margins = {3: 0.05}
    heads = {"full": random_head(0, margins), "half": random_head(1, margins)}
    own = Reranker(loaded(put_heads(reranker_bundle(tmp_path), heads)))

    async def ask(config: str) -> tuple[object, int]:
        async with AsyncReranker(own) as service:
            found = await service.ranked(QUERY, MANY, top_n=2, length_config=config)
            return found.result, found.tokens

    windows = own._windows([(QUERY, text) for text in MANY], "document", None, None)
    every = sum(len(window) for of_document in windows.values() for window in of_document)
    result, tokens = run(ask("full"))
    assert result == own.rank(QUERY, MANY, 2, length_config="full")
    assert 0 < tokens < every / 2
    result, tokens = run(ask("half"))
    assert result == own.rank(QUERY, MANY, 2, length_config="half", drop_documents=False)
    assert tokens == every


def test_a_reranker_without_a_bundle_is_the_embedded_one() -> None:
    direct = Reranker.from_pretrained(num_threads=1, function_to_apply="none")

    async def ask() -> None:
        async with AsyncReranker.from_pretrained(num_threads=1, function_to_apply="none", max_queued=3) as service:
            assert service.reranker.model.bundle.path == direct.model.bundle.path
            assert service.max_queued == 3
            documents = ["It rained.", "Ada wrote it."]
            assert await service.rank("who wrote it?", documents) == direct.rank("who wrote it?", documents)

    run(ask())


def test_a_long_ranking_does_not_keep_a_short_request_waiting(reranker: Reranker) -> None:
    """Each run of a graph is a turn, and between two turns of the ranking the short request has its one."""
    direct = reranker.rank(QUERY, MANY), TextClassifier(reranker.model)("a b")

    async def ask() -> None:
        async with AsyncReranker(reranker) as service:
            with held_graphs() as held:
                long = asyncio.create_task(service.rank(QUERY, MANY))
                await asyncio.to_thread(held.began.acquire)
                short = asyncio.create_task(service("a b"))
                await all_prepared(service)
                assert service.queued == 1
                held.let(2)
                assert await short == direct[1]
                assert held.rows[:2] == [8, 1]
                assert not long.done()
                held.let(10)
                assert await long == direct[0]
                assert held.rows == [8, 1, 8, 8]
            assert service.turns == 4

    run(ask())


def test_what_nobody_waits_for_is_run_no_further(reranker: Reranker) -> None:
    async def ask() -> None:
        service = AsyncReranker(reranker, workers=1)
        with held_graphs() as held:
            cancelled = asyncio.create_task(service.rank(QUERY, MANY))
            await asyncio.to_thread(held.began.acquire)
            waiting = asyncio.create_task(service.rank(QUERY, MANY))
            with pytest.raises(DeadlineExceededError):
                await service.rank(QUERY, MANY, timeout=0.05)
            for task in (cancelled, waiting):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            held.let(1)
            await no_steps_stay()
            assert held.rows == [8]
            dropped = asyncio.create_task(service.rank(QUERY, MANY))
            await asyncio.to_thread(held.began.acquire)
            closing = asyncio.create_task(service.aclose(drain=False))
            await asyncio.sleep(0)
            held.let(1)
            with pytest.raises(ClosedError):
                await dropped
            await closing
            assert held.rows == [8, 8]
        with pytest.raises(ClosedError):
            await service.rank(QUERY, DOCUMENTS)

    run(ask())


def test_accepted_requests_are_finished_when_it_is_closed(reranker: Reranker) -> None:
    async def ask() -> object:
        service = AsyncReranker(reranker, max_queued=1, workers=1)
        with held_graphs() as held:
            first = asyncio.create_task(service.rank(QUERY, MANY))
            await asyncio.to_thread(held.began.acquire)
            second = asyncio.create_task(service.rank(QUERY, MANY))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await service.rank(QUERY, MANY)
            held.let(100)
            await service.aclose()
        return [await first, await second]

    assert run(ask()) == [reranker.rank(QUERY, MANY)] * 2


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((QUERY, []), {}, InvalidInputError, "no documents"),
        ((QUERY, ["a", " "]), {}, InvalidInputError, "document 1 of 2, counted from 0: document is empty"),
        ((QUERY, "a"), {}, InvalidInputError, "documents must be a list"),
        (("a " * 200, ["a"]), {}, InvalidInputError, "query"),
        ((QUERY, ["a"]), {"top_n": 0}, InvalidInputError, "top_n"),
        ((QUERY, ["a"]), {"length_config": "none"}, LengthConfigError, "unknown length configuration 'none'"),
        ((QUERY, ["a"]), {"timeout": 0}, InvalidInputError, "timeout must be more than 0"),
    ],
)
def test_errors_are_those_of_direct_calls(
    reranker: Reranker, arguments: tuple[Any, Any], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    async def ask() -> None:
        async with AsyncReranker(reranker) as service:
            with pytest.raises(kind, match=message):
                await service.rank(*arguments, **options)
            assert len(await service.rank(QUERY, DOCUMENTS)) == len(DOCUMENTS)

    run(ask())


def test_a_pickle_holds_the_reranker_and_the_arguments(reranker: Reranker, classifier: TextClassifier) -> None:
    for service in (AsyncReranker(reranker, max_queued=7), AsyncTextClassifier(classifier, max_queued=7)):
        copied = pickle.loads(pickle.dumps(service))
        assert (type(copied), copied.max_queued, copied.workers) == (type(service), 7, service.workers)


def carried_out(service: Any, *jobs: Job) -> list[Any]:  # noqa: ANN401
    async def ask() -> list[Any]:
        async with service:
            return [await carry_out(service, job, deadline=time.monotonic() + 60) for job in jobs]

    found: list[Any] = run(ask())
    return found


def test_jobs_have_the_results_of_direct_calls(reranker: Reranker, classifier: TextClassifier) -> None:
    raw = Reranker(reranker.model, function_to_apply="none").rank(QUERY, DOCUMENTS, top_n=3)
    jobs = (RankJob(QUERY, DOCUMENTS, True, {"top_n": 3}), RankJob(QUERY, DOCUMENTS, False, {"top_n": 3}))
    logits, scores, labels = carried_out(service_for(reranker.model), *jobs, ClassifyJob((("a",),)))
    assert logits.result == raw
    assert scores.result == reranker.rank(QUERY, DOCUMENTS, top_n=3)
    assert [own["score"] for own in scores.result] == [
        pytest.approx(float(sigmoid(np.array(own["score"])))) for own in raw
    ]
    assert labels.result == TextClassifier(reranker.model).classify_batch("a")

    texts = (("a b",), ("who", "the a"))
    found, outputs = carried_out(
        service_for(classifier.model), ClassifyJob(texts, {"length_config": "half"}), LogitsJob(IDS, MASK)
    )
    several = ["a b", {"text": "who", "text_pair": "the a"}]
    assert found.result == classifier.classify_batch(several, length_config="half")
    assert found.length_config == "half"
    direct = classifier.model(IDS, attention_mask=MASK)
    np.testing.assert_array_equal(outputs.outputs["logits"], direct.logits)
    assert (outputs.tokens, outputs.kept) == (13, (13, 13, 13))


def test_no_graph_is_compiled_for_the_ratios_of_a_client(reranker: Reranker) -> None:
    compiled = []
    for ratio in (0.9, 0.8, 0.7):
        job = RankJob(QUERY, DOCUMENTS, options={"length_config": (1.0, ratio, ratio)})
        (ranked,) = carried_out(service_for(reranker.model), job)
        assert ranked.length_config is None
        compiled.append(len(reranker.model._graphs))
    assert len(set(compiled)) == 1


def test_jobs_of_other_tasks_are_refused(
    reranker: Reranker, classifier: TextClassifier, served: QuestionAnswerer
) -> None:
    rank, classify = RankJob(QUERY, DOCUMENTS), ClassifyJob((("a",),))
    answer, explain = AnswerJob(("who?",), ("a",)), ExplainJob("who?", "a")
    for model, jobs in (
        (served.model, [rank, classify]),
        (classifier.model, [rank, answer, explain]),
        (reranker.model, [answer, explain]),
    ):
        for job in jobs:
            with pytest.raises(InvalidInputError, match=f"cannot carry out a {type(job).__name__}"):
                carried_out(service_for(model), job)


def test_facts_say_the_task_and_the_labels(reranker: Reranker, classifier: TextClassifier) -> None:
    for model, labels in ((reranker.model, 1), (classifier.model, 3)):
        facts = model_facts(model, "tiny")
        assert facts.task == "sequence_classification"
        assert facts.labels == tuple(f"LABEL_{i}" for i in range(labels))


def test_labels_that_do_not_fit_the_graph_are_refused_before_there_are_requests(tmp_path: Path) -> None:
    bundle = labels_bundle(tmp_path / "b")
    config = bundle / "config.json"
    config.write_text(config.read_text().replace('"LABEL_2"', '"LABEL_2", "3": "LABEL_3"', 1))
    rewrite_manifest(bundle, lambda manifest: manifest["files"].update({"config.json": size_and_digest(config)}))
    with pytest.raises(BundleFormatError, match=r"has 3 outputs, but its config.json has 4 labels"):
        service_for(loaded(bundle))


def test_the_class_of_another_task_is_named(served_bundle: Path, tmp_path: Path) -> None:
    for kind in (AsyncReranker, AsyncTextClassifier):
        with pytest.raises(InvalidInputError, match="use QuestionAnswerer for it"):
            kind.from_pretrained(served_bundle)
    with pytest.raises(InvalidInputError, match="use TextClassifier for it"):
        AsyncReranker.from_pretrained(labels_bundle(tmp_path / "b"))
