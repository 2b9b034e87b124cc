"""POST /predict: the answers of `QuestionAnswerer`, and a clear refusal of everything else."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert import AsyncQuestionAnswerer, LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import StartingError, WorkerLostError

from support.held_model import TEXT, busy, held
from support.http_app import CONTEXT, QUESTION, AskedApp, asked_app
from support.live_server import live_server
from support.tiny import tiny_bundle

PAIR = {"question": QUESTION, "context": CONTEXT}
OTHER = {"question": "who ?", "context": "a and b and c"}
FAST = {"fast": LengthConfig((1.0, 0.5, 0.5))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", FAST)


@pytest.fixture(scope="module")
def direct(bundle: Path) -> QuestionAnswerer:
    return QuestionAnswerer.from_pretrained(bundle, num_threads=1)


def on_app(bundle: Path, steps: Callable[[AskedApp], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with asked_app(bundle, **settings) as app:
            await steps(app)

    asyncio.run(run())


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": None},
        {"length_config": "fast"},
        {"length_config": [1, 0.75, 0.5]},
        {"max_answer_len": 2, "max_seq_len": 24, "doc_stride": 4},
        {"handle_impossible_answer": True, "align_to_words": False, "merge": "text"},
        {"timeout_ms": 30000},
        {"max_question_len": 3},
    ],
)
def test_answers_are_those_of_direct_calls(bundle: Path, direct: QuestionAnswerer, parameters: dict[str, Any]) -> None:
    if isinstance(parameters.get("length_config"), list):  # these run in the elastic graph
        direct = QuestionAnswerer.from_pretrained(bundle, num_threads=1, elastic=True)

    async def steps(app: AskedApp) -> None:
        for inputs in (PAIR, [PAIR], [OTHER, PAIR, OTHER]):
            answered = await app.client.post("/predict", json={"inputs": inputs, "parameters": parameters})
            assert answered.status_code == 200, answered.text
            own = {key: value for key, value in parameters.items() if key not in ("timeout_ms", "max_question_len")}
            expected = [answers[0] for answers in direct.answer_batch(inputs, **own)]
            answers = answered.json()
            assert isinstance(answers, list) == isinstance(inputs, list)
            for answer, own_expected in zip(answers if isinstance(inputs, list) else [answers], expected, strict=True):
                # Windows that share a batch, or a graph for any keep ratios, may change the last bits of floats.
                assert answer == {**own_expected, "score": pytest.approx(own_expected["score"], rel=1e-5)}

    on_app(bundle, steps)


def test_several_answers_are_a_list_however_many_there_are(bundle: Path, direct: QuestionAnswerer) -> None:
    async def steps(app: AskedApp) -> None:
        one = {"question": "who ?", "context": "a"}
        for pair, count in ((PAIR, 3), (one, 1)):
            request = {"inputs": pair, "parameters": {"top_k": 3}}
            answers = (await app.client.post("/predict", json=request)).json()
            assert answers == direct.answer_batch(pair, top_k=3)[0]
            assert len(answers) == count

    on_app(bundle, steps)


def test_with_a_budget_answers_say_what_ran(bundle: Path) -> None:
    async def steps(app: AskedApp) -> None:
        for budget, met in ((1e6, True), (1e-6, False)):
            request = {"inputs": PAIR, "parameters": {"budget_ms": budget}}
            answer = (await app.client.post("/predict", json=request)).json()
            assert (answer["length_config"] in ("full", "fast"), answer["budget_met"]) == (True, met)
            assert await app.metric(f'dynamic_tinybert_budgets_total{{met="{str(met).lower()}"}}') == 1

    on_app(bundle, steps)


INVALID = [
    ("text", "the body must be an object .*, not a text"),
    ([], "not a list"),
    ({}, r"the keys \(none\)"),
    ({"input": PAIR}, "the keys 'input'"),
    ({"inputs": PAIR, "options": {}}, "unknown keys 'options' in the body"),
    ({"inputs": []}, "inputs is an empty list"),
    ({"inputs": "where?"}, "inputs must be an object .*, not a text"),
    ({"inputs": [PAIR, None]}, r"inputs\[1\] must be an object .*, not null"),
    ({"inputs": {"question": "a"}}, "the keys 'question'"),
    ({"inputs": {**PAIR, "id": 1}}, "the keys 'context', 'id', 'question'"),
    ({"inputs": {**PAIR, "question": 3}}, "inputs.question must be a text, not the number 3"),
    ({"inputs": {**PAIR, "question": ""}}, "question is empty"),
    ({"inputs": [PAIR, {**PAIR, "context": " "}]}, "item 1 of 2, counted from 0: context is empty"),
    ({"inputs": PAIR, "parameters": []}, "parameters must be an object, not a list"),
    ({"inputs": PAIR, "parameters": {"topk": 1}}, "unknown parameter 'topk'; there are top_k, doc_stride, "),
    ({"inputs": PAIR, "parameters": {"batch_size": 1}}, "unknown parameter 'batch_size'"),
    ({"inputs": PAIR, "parameters": {"top_k": 0}}, "top_k must be an int of at least 1, not 0"),
    ({"inputs": PAIR, "parameters": {"top_k": 101}}, "top_k must be at most 100, not the number 101"),
    ({"inputs": PAIR, "parameters": {"top_k": 10**400}}, "top_k must be at most 100"),
    ({"inputs": PAIR, "parameters": {"top_k": 1.0}}, "top_k must be an int"),
    ({"inputs": PAIR, "parameters": {"top_k": True}}, "top_k must be an int"),
    ({"inputs": PAIR, "parameters": {"max_seq_len": 4000}}, "max_seq_len=4000 is more than the 128 tokens"),
    ({"inputs": PAIR, "parameters": {"max_seq_len": 3}}, "no room"),
    ({"inputs": PAIR, "parameters": {"align_to_words": "no"}}, "align_to_words must be true or false, not a text"),
    ({"inputs": PAIR, "parameters": {"align_to_words": 0}}, "align_to_words must be true or false, not the number 0"),
    ({"inputs": PAIR, "parameters": {"merge": "both"}}, "merge must be one of 'span', 'text', not 'both'"),
    ({"inputs": PAIR, "parameters": {"merge": 1}}, "merge must be a text, not the number 1"),
    ({"inputs": PAIR, "parameters": {"budget_ms": 0}}, "budget_ms must be more than 0"),
    ({"inputs": PAIR, "parameters": {"budget_ms": "20"}}, "budget_ms must be a number, not '20'"),
    ({"inputs": PAIR, "parameters": {"budget_ms": 10**400}}, "budget_ms must be a finite number"),
    ({"inputs": PAIR, "parameters": {"max_f1_loss": -1}}, "max_f1_loss must be at least 0"),
    ({"inputs": PAIR, "parameters": {"budget_ms": 9, "length_config": "full"}}, "length_config"),
    ({"inputs": PAIR, "parameters": {"timeout_ms": 0}}, "timeout_ms must be more than 0"),
    ({"inputs": PAIR, "parameters": {"timeout_ms": 60001}}, "timeout_ms must be at most 60000"),
    ({"inputs": PAIR, "parameters": {"length_config": {}}}, "length_config must be a name or a list of keep ratios"),
    ({"inputs": PAIR, "parameters": {"length_config": ["a"]}}, "a keep ratio of length_config must be a number"),
]


def test_what_cannot_be_used_is_refused_with_the_reason(bundle: Path) -> None:
    async def steps(app: AskedApp) -> None:
        for body, reason in INVALID:
            await refused(await app.client.post("/predict", json=body), 422, "invalid_input", reason)
        for config, reason in (
            ("nix", "unknown length configuration 'nix'; this bundle has: full, fast"),
            ([1, 0.5], "has 2 keep ratios"),
            ([1, 0.5, 0.9], "is larger than 0.5 of the layer before"),
        ):
            request = {"inputs": PAIR, "parameters": {"length_config": config}}
            await refused(await app.client.post("/predict", json=request), 422, "length_config", reason)
        assert await app.metric('dynamic_tinybert_failures_total{error_type="length_config"}') == 3
        assert (await app.client.post("/predict", json={"inputs": PAIR})).status_code == 200

    on_app(bundle, steps)


async def refused(response: httpx.Response, status: int, error_type: str, reason: str) -> None:

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error", "error_type"}
    assert body["error_type"] == error_type
    assert re.search(reason, body["error"]), body["error"]
    assert len(body["error"]) <= 1002


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["top_k", "doc_stride", "max_answer_len", "max_seq_len", "merge", "length_config", "budget_ms", "timeout_ms"]
)


@settings(max_examples=200, deadline=None)
@given(body=JSON | st.fixed_dictionaries({"inputs": st.just(PAIR) | JSON, "parameters": st.dictionaries(NAMES, JSON)}))
def test_no_json_is_a_server_error(asker: "Asker", body: object) -> None:
    status = asker.post(body).status_code
    assert status in (200, 400, 413, 422, 504)


class Asker:
    """Asks one application again and again, in one event loop."""

    def __init__(self, runner: asyncio.Runner, app: AskedApp) -> None:
        self._runner = runner
        self._app = app

    def post(self, body: object) -> httpx.Response:
        return self._runner.run(self._app.client.post("/predict", json=body))


@pytest.fixture(scope="module")
def asker(bundle: Path) -> Iterator["Asker"]:
    with asyncio.Runner() as runner:
        context = asked_app(bundle)
        yield Asker(runner, runner.run(context.__aenter__()))
        runner.run(context.__aexit__(None, None, None))


def test_limits_of_items_and_characters(bundle: Path) -> None:
    async def steps(app: AskedApp) -> None:
        response = await app.client.post("/predict", json={"inputs": [OTHER] * 4})
        await refused(response, 413, "too_large", "4 questions in one request; this server takes 3")
        response = await app.client.post("/predict", json={"inputs": {**PAIR, "context": "a" * 100}})
        await refused(response, 413, "too_large", "the texts have 117 characters; this server takes 100")
        assert (await app.client.post("/predict", json={"inputs": [OTHER] * 3})).status_code == 200

    on_app(bundle, steps, max_items=3, max_characters=100)


def test_a_full_queue_a_late_answer_and_the_end(served: QuestionAnswerer) -> None:
    async def run() -> None:
        async with (
            busy(served, max_queued=1) as (service, calls, first),
            asked_app(service, request_timeout_s=30) as app,
        ):
            request = {"inputs": {"question": "who?", "context": TEXT}}
            waiting = asyncio.create_task(app.client.post("/predict", json=request))
            while service.queued < 1:
                await asyncio.sleep(0.001)
            full = await app.client.post("/predict", json=request)
            await refused(full, 429, "overloaded", "try again later")
            assert full.headers["retry-after"] == "1"
            assert await app.metric("dynamic_tinybert_queued") == 1
            calls.open()
            await first
            assert (await waiting).status_code == 200
            late = await app.client.post("/predict", json={**request, "parameters": {"timeout_ms": 1e-4}})
            await refused(late, 504, "deadline_exceeded", "not answered by its deadline")
            await app.backend.aclose()
            for path, method in (("/predict", "POST"), ("/health", "GET")):
                ended = await app.client.request(method, path, json=request)
                await refused(ended, 503, "draining", "closed|shutting down")
                assert (ended.headers["retry-after"], ended.headers["connection"]) == ("1", "close")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "status", "error_type", "reason"),
    [
        (StartingError("the model is not loaded yet"), 503, "starting", "not loaded"),
        (WorkerLostError("it ended"), 503, "worker_lost", "it ended"),
        (RuntimeError("secret"), 500, "internal", "^internal error; the server's log says more$"),
    ],
)
def test_errors_of_the_backend(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, error_type: str, reason: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    async def steps(app: AskedApp) -> None:
        monkeypatch.setattr(app.backend, "run", fail)
        response = await app.client.post("/predict", json={"inputs": PAIR})
        await refused(response, status, error_type, reason)
        assert response.headers.get("retry-after") == ("1" if status == 503 else None)
        assert await app.metric(f'dynamic_tinybert_failures_total{{error_type="{error_type}"}}') == 1
        sample = f'dynamic_tinybert_requests_total{{method="POST",route="/predict",status="{status}"}}'
        assert await app.metric(sample) == 1

    on_app(bundle, steps)


def test_braces_in_what_is_refused_are_only_text(bundle: Path) -> None:
    async def steps(app: AskedApp) -> None:
        response = await app.client.post("/predict", content=b"1", headers={"content-type": "{path}{0}"})
        await refused(response, 415, "unsupported_media_type", r"not '\{path\}\{0\}'")
        await refused(await app.client.get("/{method}"), 404, "not_found", "nothing at /{method}")
        await refused(
            await app.client.get("/predict"), 405, "method_not_allowed", "not take the method GET; it takes POST"
        )

    on_app(bundle, steps)


def test_a_client_that_hangs_up_gives_its_place_back(served: QuestionAnswerer) -> None:
    with held(served) as (slow, calls), live_server(AsyncQuestionAnswerer(slow, workers=1)) as server:
        body = httpx.Request("POST", server.url, json={"inputs": {"question": "who?", "context": TEXT}}).content
        head = f"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with server.connect() as first, server.connect() as second:
            first.sendall(head + body)
            assert calls.began.acquire(timeout=60)
            second.sendall(head + body)
            while server.backend.queued != 1:
                time.sleep(0.001)
        while server.backend.queued:  # the second one's place; the first one's batch is still held
            time.sleep(0.001)
        assert len(calls.rows) == 1
        calls.open()
        answer = httpx.post(f"{server.url}/predict", content=body)
        assert answer.json() == served("who?", TEXT)
        sample = 'dynamic_tinybert_requests_total{method="POST",route="/predict",status="499"} 2.0'
        assert sample in httpx.get(f"{server.url}/metrics").text


def test_the_client_of_hugging_face(bundle: Path, direct: QuestionAnswerer) -> None:
    with live_server(bundle) as server:
        client = InferenceClient(f"{server.url}/predict")
        one = client.question_answering(question=QUESTION, context=CONTEXT, max_answer_len=4)
        assert dict(one) == direct(QUESTION, CONTEXT, max_answer_len=4)
        several = client.question_answering(question=QUESTION, context=CONTEXT, top_k=3, align_to_words=False)
        assert [dict(answer) for answer in several] == direct(QUESTION, CONTEXT, top_k=3, align_to_words=False)
