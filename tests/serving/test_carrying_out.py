"""Jobs of all kinds share the queue of an asynchronous answerer, and have the results of direct calls."""

import asyncio
import json
import pickle
import time
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from dynamic_tinybert import AsyncQuestionAnswerer, LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidInputError,
    LengthConfigError,
    OverloadedError,
)
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.serving.carrying_out import carry_out, model_facts
from dynamic_tinybert.serving.jobs import AnswerJob, Backend, ExplainJob, Job, Logits, LogitsJob

from support.direct_backend import DirectBackend
from support.held_model import TEXT, busy, started

pytestmark = pytest.mark.usefixtures("no_worker_stays")

IDS = np.array([[2, 40, 41, 3, 50, 51, 52, 53, 3, 0, 0], [2, 42, 3, 60, 61, 3, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).astype(np.int64)
SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]])


def result(answerer: QuestionAnswerer, job: Job, **options: Any) -> Any:  # noqa: ANN401 - by the job's kind
    async def ask() -> object:
        async with AsyncQuestionAnswerer(answerer) as service:
            return await carry_out(service, job, **options)

    return asyncio.run(ask())


def test_an_answer_job_gives_the_answers_of_a_direct_call(served: QuestionAnswerer) -> None:
    options = {"length_config": "half", "top_k": 2}
    answered = result(served, AnswerJob(("who?", "where?"), (TEXT, TEXT), options))
    assert answered.answers == served.answer_batch(["who?", "where?"], TEXT, **options)
    assert answered.length_config == "half"
    assert answered.tokens == answered.kept[0] > answered.kept[1] > answered.kept[2]


@pytest.mark.parametrize("config", [None, "half", (1.0, 0.4, 0.4)])
def test_a_logits_job_gives_the_logits_of_a_direct_call(served: QuestionAnswerer, config: Any) -> None:  # noqa: ANN401
    logits = result(served, LogitsJob(IDS, MASK, SEGMENTS, config))
    options = {"length_configs": [config] * 2} if isinstance(config, tuple) else {"length_config": config}
    direct = served.model(IDS, attention_mask=MASK, token_type_ids=SEGMENTS, **options)
    np.testing.assert_array_equal(logits.outputs["start_logits"], direct.start_logits)
    np.testing.assert_array_equal(logits.outputs["end_logits"], direct.end_logits)
    assert logits.length_config == {None: "full", "half": "half"}.get(config)


def test_no_graph_is_compiled_for_the_ratios_of_a_client(served: QuestionAnswerer) -> None:
    compiled = []
    for ratio in (0.9, 0.8, 0.7):
        result(served, LogitsJob(IDS, MASK, SEGMENTS, (1.0, ratio, ratio)))
        compiled.append(len(served.model._graphs))
    assert len(set(compiled)) == 1


def test_a_logits_job_counts_tokens_as_a_question_does(served: QuestionAnswerer) -> None:
    answered = result(served, AnswerJob(("who?",), (TEXT,), {"length_config": "half"}))
    window = explain(served.model, "who?", TEXT, length_config="half").windows[0]
    tokenizer = Tokenizer.from_file(str(served.model.tokenizer_file))
    ids = np.array([[tokenizer.token_to_id(token.text) for token in window.tokens]])
    segments = np.array([[int(token.segment == "context") for token in window.tokens]])
    segments[0, -1] = 1
    padded = [np.pad(array, ((0, 0), (0, 9))) for array in (ids, np.ones_like(ids), segments)]
    for job in (LogitsJob(ids, None, segments, "half"), LogitsJob(padded[0], padded[1], padded[2], "half")):
        logits = result(served, job)
        assert (logits.tokens, logits.kept) == (answered.tokens, answered.kept)


def test_a_logits_job_adds_up_the_tokens_of_its_rows(served: QuestionAnswerer) -> None:
    def counts(rows: slice) -> Logits:
        logits: Logits = result(served, LogitsJob(IDS[rows], MASK[rows], SEGMENTS[rows], "half"))
        return logits

    both, *rows = (counts(rows) for rows in (slice(0, 2), slice(0, 1), slice(1, 2)))
    assert both.tokens == sum(row.tokens for row in rows) == 15
    assert both.kept == tuple(map(sum, zip(*(row.kept for row in rows), strict=True)))
    assert result(served, LogitsJob(IDS, MASK, SEGMENTS)).kept == (15, 15, 15)


def test_an_explain_job_gives_plain_values(served: QuestionAnswerer) -> None:
    explanation = result(served, ExplainJob("who?", TEXT, "half"))
    assert explanation == explain(served.model, "who?", TEXT, length_config="half").to_dict()
    json.dumps(explanation, allow_nan=False)


@pytest.mark.parametrize(
    ("job", "kind"),
    [
        (AnswerJob(("",), (TEXT,)), InvalidInputError),
        (LogitsJob(IDS + 1000), InvalidInputError),
        (LogitsJob(IDS, length_config="none"), LengthConfigError),
        (ExplainJob("who?", ""), InvalidInputError),
    ],
)
def test_errors_are_those_of_direct_calls(served: QuestionAnswerer, job: Job, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        result(served, job)


@pytest.mark.parametrize("job", [AnswerJob(("who?",), (TEXT,)), LogitsJob(IDS), ExplainJob("who?", TEXT)])
def test_every_kind_of_job_waits_in_the_same_queue(served: QuestionAnswerer, job: Job) -> None:
    async def ask() -> None:
        async with busy(served, max_queued=1) as (service, calls, _):
            with pytest.raises(DeadlineExceededError):
                await carry_out(service, job, deadline=time.monotonic() + 0.05)
            assert service.queued == 0
            waiting = started(carry_out(service, job))
            await asyncio.sleep(0)
            assert service.queued == 1
            with pytest.raises(OverloadedError):
                await carry_out(service, job)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert service.queued == 0
            calls.open()
            await carry_out(service, job)
        with pytest.raises(ClosedError):
            await carry_out(service, job)

    asyncio.run(ask())


def test_facts_say_what_the_model_is(served: QuestionAnswerer) -> None:
    facts = model_facts(served.model, "tiny")
    assert (facts.name, facts.version, facts.max_length, facts.vocab_size, facts.num_layers) == (
        "tiny",
        "1",
        128,
        100,
        3,
    )
    assert list(facts.length_configs) == ["full", "half"]
    assert facts.length_configs["half"]["keep_ratios"] == list(LengthConfig((1, 0.5, 0.3)).keep_ratios)
    assert (facts.default_length_config, facts.threads) == ("full", 1)
    assert pickle.loads(pickle.dumps(facts)) == facts


def test_a_direct_backend_is_a_backend(served: QuestionAnswerer) -> None:
    async def ask() -> None:
        backend: Backend = DirectBackend(AsyncQuestionAnswerer(served))
        assert backend.facts == model_facts(served.model, "tiny")
        answered = await backend.run(AnswerJob(("who?",), (TEXT,)))
        assert answered.answers == served.answer_batch("who?", TEXT)
        await backend.aclose()
        assert backend.draining
        assert not backend.ready

    asyncio.run(ask())
