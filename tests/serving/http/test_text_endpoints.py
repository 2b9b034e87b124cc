"""POST /rerank, /v1/rerank and /predict of classifiers: the results of direct calls, and clear refusals."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dynamic_tinybert import Reranker, TextClassifier
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import sigmoid

from support.described import assert_described
from support.http_app import AskedApp, asked_app
from support.live_server import live_server
from support.serve_process import serve_process
from support.text_services import DOCUMENTS, QUERY, labels_bundle, loaded, reranker_bundle
from support.tiny import tiny_bundle

RERANK = {"query": QUERY, "texts": list(DOCUMENTS)}
COHERE = {"query": QUERY, "documents": list(DOCUMENTS)}


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker_bundle(tmp_path_factory.mktemp("reranker") / "b")


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labels_bundle(tmp_path_factory.mktemp("classifier") / "b")


@pytest.fixture(scope="module")
def reranker(rerankers: Path) -> Reranker:
    return Reranker(loaded(rerankers), function_to_apply="none")


@pytest.fixture(scope="module")
def classifier(classifiers: Path) -> TextClassifier:
    return TextClassifier(loaded(classifiers))


def on_app(bundle: Path, steps: Callable[[AskedApp], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        async with asked_app(bundle, **settings) as app:
            await steps(app)

    asyncio.run(run())


async def answered(app: AskedApp, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
    response = await app.client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["server-timing"].startswith("run;dur=")
    return response.json()


def test_rerank_in_both_shapes(rerankers: Path, reranker: Reranker) -> None:
    def scores(logits: list[float]) -> list[float]:
        return [float(score) for score in sigmoid(np.array(logits, np.float32))]

    async def steps(app: AskedApp) -> None:
        own: dict[str, Any]
        for own in ({}, {"length_config": "half"}, {"top_n": 2, "timeout_ms": 30000, "truncate": True}):
            direct = reranker.rank(
                QUERY, DOCUMENTS, **{k: v for k, v in own.items() if k in ("length_config", "top_n")}
            )
            indices, logits = [d["corpus_id"] for d in direct], [d["score"] for d in direct]
            raw = await answered(app, "/rerank", {**RERANK, **own, "raw_scores": True, "return_text": True})
            assert raw == [
                {"index": i, "score": logit, "text": DOCUMENTS[i]} for i, logit in zip(indices, logits, strict=True)
            ]
            ranked = await answered(app, "/rerank", {**RERANK, **own, "raw_scores": None})
            assert ranked == [{"index": i, "score": s} for i, s in zip(indices, scores(logits), strict=True)]
            own = {key: value for key, value in own.items() if key != "truncate"}
            cohere = await answered(app, "/v1/rerank", {**COHERE, **own, "model": "any", "return_documents": True})
            assert cohere["results"] == [
                {"index": i, "relevance_score": s, "document": {"text": DOCUMENTS[i]}}
                for i, s in zip(indices, scores(logits), strict=True)
            ]
            assert cohere["meta"] == {"api_version": {"version": "1"}}
            assert len(cohere["id"]) == 36
        mixed = {"query": QUERY, "documents": [{"text": DOCUMENTS[0]}, DOCUMENTS[1]]}
        first = await answered(app, "/v1/rerank", mixed)
        assert [own.keys() for own in first["results"]] == [{"index", "relevance_score"}] * 2
        any_ratios = await answered(app, "/rerank", {**RERANK, "length_config": [1, 0.75, 0.5]})
        assert len(any_ratios) == len(DOCUMENTS)
        assert await app.metric('dynamic_tinybert_jobs_total{length_config="half"}') == 3
        assert await app.metric('dynamic_tinybert_jobs_total{length_config="other"}') == 1
        assert await app.metric("dynamic_tinybert_tokens_total") > 100
        assert await app.metric("dynamic_tinybert_kept_share_count") == 11

    on_app(rerankers, steps)


def test_equal_documents_have_equal_scores_in_the_order_given(rerankers: Path) -> None:
    async def steps(app: AskedApp) -> None:
        ranked = await answered(app, "/rerank", {"query": QUERY, "texts": ["a", "b c", "a", "a"]})
        equal = [own for own in ranked if own["index"] != 1]
        assert [own["index"] for own in equal] == [0, 2, 3]
        assert len({own["score"] for own in equal}) == 1

    on_app(rerankers, steps)


def test_predict_in_the_shapes_of_tei(
    classifiers: Path, classifier: TextClassifier, rerankers: Path, reranker: Reranker
) -> None:
    pair = {"text": "who", "text_pair": "the a"}
    cases: list[tuple[Any, Any, bool]] = [
        ("a b", ["a b"], False),
        (["a b"], ["a b"], False),
        (["who", "the a"], [pair], False),
        ([["a b"], ["who", "the a"]], ["a b", pair], True),
        ([["a b"]], ["a b"], True),
    ]

    async def steps(app: AskedApp) -> None:
        for inputs, texts, is_batch in cases:
            for own, options in (
                ({}, {}),
                ({"raw_scores": True}, {"function_to_apply": "none"}),
                ({"length_config": "half"}, {"length_config": "half"}),
            ):
                direct = own_classifier.classify_batch(texts, **options)
                assert await answered(app, "/predict", {"inputs": inputs, **own}) == (direct if is_batch else direct[0])
        long = {"inputs": "a " * 200, "truncate": True, "truncation_direction": "Right"}
        assert await answered(app, "/predict", long) == own_classifier.classify_batch("a " * 200, truncation=True)[0]

    own_classifier = classifier
    on_app(classifiers, steps)
    own_classifier = TextClassifier(reranker.model)
    on_app(rerankers, steps)


INVALID = [
    ("/rerank", [], "must be an object with query and texts, not a list"),
    ("/rerank", {"texts": ["a"]}, "the body has no query; its keys are 'texts'"),
    ("/rerank", {"query": "who"}, "the body has no texts; its keys are 'query'"),
    ("/rerank", {"query": "who", "texts": []}, "texts is an empty list; give at least one"),
    ("/rerank", {"query": "who", "texts": "a"}, "texts must be a list, not a text"),
    ("/rerank", {"query": "who", "texts": ["a", 3]}, r"texts\[1\] must be a text, not the number 3"),
    ("/rerank", {"query": "who", "texts": ["a", "  "]}, "document 1 of 2, counted from 0: document is empty"),
    ("/rerank", {"query": "", "texts": ["a"]}, "query is empty"),
    ("/rerank", {"query": None, "texts": ["a"]}, "query must be a text, not null"),
    ("/rerank", {"query": "who " * 200, "texts": ["a"]}, "query"),
    ("/rerank", {"query": "who", "texts": ["a"], "top_k": 1}, "unknown parameter 'top_k'; there are raw_scores, "),
    ("/rerank", {"query": "who", "texts": ["a"], "top_n": 0}, "top_n must be an int of at least 1"),
    ("/rerank", {"query": "who", "texts": ["a"], "raw_scores": 1}, "raw_scores must be true or false"),
    ("/rerank", {"query": "who", "texts": ["a"], "truncation_direction": "left"}, "one of 'right', 'Right'"),
    ("/rerank", {"query": "who", "texts": ["a"], "timeout_ms": 0}, "timeout_ms must be more than 0"),
    ("/v1/rerank", {"query": "who", "texts": ["a"]}, "the body has no documents; its keys are 'query', 'texts'"),
    ("/v1/rerank", {"query": "who", "documents": []}, "documents is an empty list"),
    ("/v1/rerank", {"query": "who", "documents": [{"title": "a"}]}, "with the key 'text' alone, not with 'title'"),
    ("/v1/rerank", {"query": "who", "documents": [{"text": 1}]}, r"documents\[0\].text must be a text"),
    ("/v1/rerank", {"query": "who", "documents": [1]}, "must be a text or an object with a text, not the number 1"),
    ("/v1/rerank", {"query": "who", "documents": ["a"], "rank_fields": ["b"]}, "unknown parameter 'rank_fields'"),
    ("/predict", {"inputs": []}, "inputs is an empty list"),
    ("/predict", {"inputs": 3}, "inputs must be a text, a pair .* not the number 3"),
    ("/predict", {"inputs": {"question": "who", "context": "a"}}, "only models for question answering take questions"),
    ("/predict", {"inputs": ["a", "b", "c"]}, "inputs has 3 items, and one text or a pair was expected"),
    ("/predict", {"inputs": [["a"], "b"]}, r"inputs\[1\] must be a list of one text or two, as inputs\[0\] is"),
    ("/predict", {"inputs": [["a"], []]}, r"inputs\[1\] has 0 items"),
    ("/predict", {"inputs": [["a"], [""]]}, "item 1 of 2, counted from 0: text is empty"),
    ("/predict", {"inputs": ["a", None]}, r"inputs\[1\] must be a text, not null"),
    ("/predict", {"inputs": "a " * 200}, "this model reads 128; shorten it"),
    ("/predict", {"inputs": "a", "parameters": {}}, "unknown parameter 'parameters'"),
]


def test_what_cannot_be_used_is_refused_with_the_reason(rerankers: Path) -> None:
    async def steps(app: AskedApp) -> None:
        for path, body, reason in INVALID:
            refused(await app.client.post(path, json=body), 422, "invalid_input", reason)
        for config, reason in (("nix", "unknown length configuration 'nix'"), ([1, 0.5], "has 2 keep ratios")):
            for path, body in (("/rerank", RERANK), ("/v1/rerank", COHERE), ("/predict", {"inputs": "a"})):
                response = await app.client.post(path, json={**body, "length_config": config})
                refused(response, 422, "length_config", reason)
        late = await app.client.post("/rerank", json={**RERANK, "timeout_ms": 1e-4})
        refused(late, 504, "deadline_exceeded", "deadline")
        await answered(app, "/rerank", RERANK)

    on_app(rerankers, steps)


def refused(response: httpx.Response, status: int, error_type: str, reason: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["error_type"] == error_type
    assert re.search(reason, body["error"]), body["error"]


def test_limits_of_items_and_characters(rerankers: Path) -> None:
    async def steps(app: AskedApp) -> None:
        for path, body, what in (
            ("/rerank", {"query": "who", "texts": ["a"] * 4}, "documents"),
            ("/v1/rerank", {"query": "who", "documents": ["a"] * 4}, "documents"),
            ("/predict", {"inputs": [["a"]] * 4}, "texts"),
        ):
            reason = f"4 {what} in one request; this server takes 3"
            refused(await app.client.post(path, json=body), 413, "too_large", reason)
        long = {"query": "who", "texts": ["a" * 50, "a" * 50]}
        refused(await app.client.post("/rerank", json=long), 413, "too_large", "have 103 characters; .* takes 100")

    on_app(rerankers, steps, max_items=3, max_characters=100)


def test_an_endpoint_of_another_task_names_the_right_one(rerankers: Path, classifiers: Path, tmp_path: Path) -> None:
    answers = tiny_bundle(tmp_path / "answers")
    for bundle, paths, reason in (
        (rerankers, ("/explain",), "which ranks documents: POST /rerank, /v1/rerank or, .*/predict"),
        (classifiers, ("/explain", "/rerank", "/v1/rerank"), "which classifies texts: POST /predict"),
        (answers, ("/rerank", "/v1/rerank"), "which answers questions: POST /predict, or /explain"),
    ):

        async def steps(app: AskedApp, paths: tuple[str, ...] = paths, reason: str = reason) -> None:
            for path in paths:
                response = await app.client.post(path, json=RERANK)
                refused(response, 404, "not_found", f"^{path} is not for the model of this server, {reason}")
                assert path not in (await app.client.get("/openapi.json")).json()["paths"]
            described = (await app.client.get("/openapi.json")).json()["paths"]
            assert "/predict" in described

        on_app(bundle, steps)


def test_the_page_and_the_facts_say_what_the_server_does(classifiers: Path, rerankers: Path) -> None:
    for bundle, does in ((classifiers, "classifies texts"), (rerankers, "ranks documents")):

        async def steps(app: AskedApp, does: str = does) -> None:
            page = await app.client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert f"This server {does}" in page.text
            assert "LABEL_0" in page.text
            for link in re.findall(r'href="([^"]*)"', page.text):
                assert (await app.client.get(f"/{link}")).status_code == 200
            info = (await app.client.get("/info")).json()["model"]
            assert info["task"] == "sequence_classification"
            assert info["labels"][0] == "LABEL_0"

        on_app(bundle, steps)


def test_the_open_inference_protocol_gives_labels_and_logits(classifiers: Path, classifier: TextClassifier) -> None:
    def tensor(name: str, texts: list[str]) -> dict[str, Any]:
        return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts}

    async def steps(app: AskedApp) -> None:
        metadata = (await app.client.get("/v2/models/tiny")).json()
        assert [own["name"] for own in metadata["inputs"]] == ["text", "text_pair"]
        body = {"inputs": [tensor("text", ["a b", "who"]), tensor("text_pair", ["c", "the a"])]}
        for parameters, options in (
            ({}, {}),
            ({"raw_scores": True, "length_config": "half"}, {"function_to_apply": "none", "length_config": "half"}),
        ):
            response = await app.client.post("/v2/models/tiny/infer", json={**body, "parameters": parameters})
            assert response.status_code == 200, response.text
            outputs = {own["name"]: own for own in response.json()["outputs"]}
            pairs = [{"text": "a b", "text_pair": "c"}, {"text": "who", "text_pair": "the a"}]
            direct = [label for own in classifier.classify_batch(pairs, **options) for label in own]
            assert outputs["label"]["shape"] == outputs["score"]["shape"] == [2, 3]
            assert outputs["label"]["data"] == [own["label"] for own in direct]
            assert outputs["score"]["data"] == [own["score"] for own in direct]
        ids = [2, 40, 41, 3]
        tokens = {"inputs": [{"name": "input_ids", "shape": [1, 4], "datatype": "INT64", "data": ids}]}
        response = await app.client.post("/v2/models/tiny-tokens/infer", json=tokens)
        (logits,) = response.json()["outputs"]
        assert (logits["name"], logits["shape"]) == ("logits", [1, 3])
        np.testing.assert_array_equal(np.array(logits["data"], np.float32), classifier.model([ids]).logits[0])
        uneven = {"inputs": [tensor("text", ["a", "b"]), tensor("text_pair", ["c"])]}
        refused(
            await app.client.post("/v2/models/tiny/infer", json=uneven),
            422,
            "invalid_input",
            "text_pair has 1 texts for 2",
        )
        question = {"inputs": [tensor("question", ["a"]), tensor("context", ["b"])]}
        refused(await app.client.post("/v2/models/tiny/infer", json=question), 422, "invalid_input", "question")

    on_app(classifiers, steps)


def test_the_command_serves_a_reranker(rerankers: Path, reranker: Reranker) -> None:
    with serve_process(rerankers) as server:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            ranked = client.post("/rerank", json={**RERANK, "raw_scores": True}).json()
            direct = reranker.rank(QUERY, DOCUMENTS)
            assert ranked == [{"index": own["corpus_id"], "score": own["score"]} for own in direct]
            assert client.get("/health").json() == {"status": "ready"}
        assert server.stop() == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reranker", "classifier"])
def test_schemathesis_finds_no_failure_of_text_endpoints(kind: str, tmp_path: Path) -> None:
    bundle = (reranker_bundle if kind == "reranker" else labels_bundle)(tmp_path / "bundle")
    with live_server(bundle, model_name="tiny", receive_timeout_s=2, max_characters=2000) as server:
        assert_described(server.url, tmp_path, examples=40)
