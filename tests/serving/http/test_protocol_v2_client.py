"""Triton's own client speaks to the server over the Open Inference Protocol."""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from dynamic_tinybert import QuestionAnswerer

from support.held_model import TEXT
from support.live_server import live_server
from support.serve_process import serve_process

pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
import gevent.monkey
from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput, InferRequestedOutput

NAME = "tiny"
TOKENS = "tiny-tokens"
QUESTIONS = ["where was ada born?", "whom did she meet?", "日本 🙂 when?"]
IDS = np.array([[2, 40, 41, 3, 50, 51, 52, 53, 3, 0, 0], [2, 42, 3, 60, 61, 3, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).astype(np.int64)
SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def address(served_bundle: Path) -> Iterator[str]:
    with live_server(served_bundle, max_items=12, max_body_bytes=100_000) as server:
        yield f"{server.host}:{server.port}"


@pytest.fixture
def client(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address) as client:
        yield client


def tensor(name: str, values: Any, datatype: str = "BYTES", *, binary: bool = True) -> InferInput:  # noqa: ANN401
    array: npt.NDArray[Any] = np.array(values, {"BYTES": "O", "INT64": "i8", "INT32": "i4"}[datatype])
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def asked(
    questions: Sequence[str | bytes] = QUESTIONS, context: str = TEXT, *, binary: bool = True
) -> list[InferInput]:
    return [tensor("question", list(questions), binary=binary), tensor("context", [context], binary=binary)]


def tokens(*, binary: bool = True) -> list[InferInput]:
    arrays = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": SEGMENTS}
    return [tensor(name, array, "INT64", binary=binary) for name, array in arrays.items()]


def test_the_test_process_is_not_patched() -> None:
    """The client needs gevent, which could replace the standard library's sockets in all tests that follow."""
    assert not gevent.monkey.saved
    assert socket.socket.__module__ == "socket"


def test_health(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    for name in (NAME, TOKENS):
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, "1")
        assert not client.is_model_ready(name, "2")
    assert not client.is_model_ready("other")


def test_metadata_of_the_server(client: InferenceServerClient) -> None:
    assert client.get_server_metadata() == {
        "name": "dynamic-tinybert",
        "version": version("dynamic-tinybert"),
        "extensions": ["binary_tensor_data", "parameters"],
    }


def test_metadata_of_models(client: InferenceServerClient) -> None:
    metadata = client.get_model_metadata(NAME)
    assert metadata == client.get_model_metadata(NAME, "1")
    assert (metadata["name"], metadata["versions"]) == (NAME, ["1"])
    assert metadata["inputs"] == [
        {"name": "question", "datatype": "BYTES", "shape": [-1]},
        {"name": "context", "datatype": "BYTES", "shape": [-1]},
    ]
    assert client.get_model_metadata(TOKENS)["outputs"] == [
        {"name": "start_logits", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "end_logits", "datatype": "FP32", "shape": [-1, -1]},
    ]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_answers_are_those_of_a_direct_call(
    client: InferenceServerClient, served: QuestionAnswerer, binary_in: bool, binary_out: bool
) -> None:
    outputs = [InferRequestedOutput(name, binary_data=binary_out) for name in ("score", "answer", "end", "start")]
    result = client.infer(
        NAME, asked(binary=binary_in), outputs=outputs, request_id="a 7", parameters={"length_config": "half"}
    )
    direct = served.answer_batch(QUESTIONS, TEXT, length_config="half")
    response = result.get_response()
    assert [response[key] for key in ("model_name", "model_version", "id")] == [NAME, "1", "a 7"]
    assert [output["name"] for output in response["outputs"]] == ["score", "answer", "end", "start"]
    assert ("data" in response["outputs"][0]) != binary_out
    assert texts(result.as_numpy("answer")) == [[own[0]["answer"]] for own in direct]
    for name in ("score", "start", "end"):
        assert result.as_numpy(name).tolist() == [[own[0][name]] for own in direct]
    check_metadata(client, NAME, response)


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("config", [None, "half", [1.0, 0.4, 0.4]])
def test_logits_are_those_of_a_direct_call_to_the_bit(
    client: InferenceServerClient, served: QuestionAnswerer, binary_in: bool, binary_out: bool, config: object
) -> None:  # fmt: skip
    outputs = [InferRequestedOutput(name, binary_data=binary_out) for name in ("start_logits", "end_logits")]
    parameters = {"length_config": config} if config else None
    result = client.infer(TOKENS, tokens(binary=binary_in), outputs=outputs, parameters=parameters)
    # Keep ratios of clients run in the one graph for all ratios.
    options: dict[str, Any] = (
        {"length_configs": [config] * 2} if isinstance(config, list) else {"length_config": config}
    )
    direct = served.model(IDS, attention_mask=MASK, token_type_ids=SEGMENTS, **options)
    np.testing.assert_array_equal(result.as_numpy("start_logits"), direct.start_logits, strict=True)
    np.testing.assert_array_equal(result.as_numpy("end_logits"), direct.end_logits, strict=True)
    check_metadata(client, TOKENS, result.get_response())


def test_mask_and_segments_may_be_left_out(client: InferenceServerClient, served: QuestionAnswerer) -> None:
    result = client.infer(TOKENS, [tensor("input_ids", IDS[:1, :9], "INT64")])
    np.testing.assert_array_equal(result.as_numpy("end_logits"), served.model(IDS[:1, :9]).end_logits)


def test_several_answers_fill_rows_up(client: InferenceServerClient, served: QuestionAnswerer) -> None:
    texts_ = [TEXT, "ada"]
    inputs = [tensor("question", ["who?", "who?"]), tensor("context", texts_)]
    result = client.infer(NAME, inputs, parameters={"top_k": 3})
    direct = served.answer_batch(["who?", "who?"], texts_, top_k=3)
    assert [len(own) for own in direct] == [3, 1]
    answers, starts = result.as_numpy("answer"), result.as_numpy("start")
    assert texts(answers) == [[one["answer"] for one in direct[0]], [direct[1][0]["answer"], "", ""]]
    assert starts.tolist() == [[one["start"] for one in direct[0]], [0, -1, -1]]
    assert result.as_numpy("score")[1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize("binary", [True, False])
def test_budgets(client: InferenceServerClient, served: QuestionAnswerer, binary: bool) -> None:
    outputs = [InferRequestedOutput(n, binary_data=binary) for n in ("answer", "budget_met", "ms", "length_config")]
    result = client.infer(NAME, asked(), outputs=outputs, parameters={"budget_ms": 1e7})
    assert texts(result.as_numpy("length_config")) == ["full"] * 3
    assert result.as_numpy("budget_met").tolist() == [True] * 3
    assert result.as_numpy("ms").shape == (3,)
    assert (result.as_numpy("ms") > 0).all()
    direct = served.answer_batch(QUESTIONS, TEXT, length_config="full")
    assert texts(result.as_numpy("answer")) == [[own[0]["answer"]] for own in direct]
    check_metadata(client, NAME, result.get_response())
    missed = client.infer(NAME, asked(), parameters={"budget_ms": 1e-6})
    assert missed.as_numpy("budget_met").tolist() == [False] * 3


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests(
    client: InferenceServerClient, served: QuestionAnswerer, algorithm: str, binary: bool
) -> None:
    compression = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    result = client.infer(NAME, asked(binary=binary), **compression)
    direct = served.answer_batch(QUESTIONS, TEXT)
    assert texts(result.as_numpy("answer")) == [[own[0]["answer"]] for own in direct]


def test_bodies_that_grow_are_refused(client: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="larger than 100000 bytes when it is decompressed") as error:
        client.infer(NAME, asked(context="a" * 10**6), request_compression_algorithm="gzip")
    assert error.value.status() == "413"


def test_asynchronous_requests(client: InferenceServerClient, served: QuestionAnswerer) -> None:
    pending = [client.async_infer(NAME, asked([question])) for question in QUESTIONS]
    found = [texts(one.get_result().as_numpy("answer")) for one in pending]
    assert found == [[[own[0]["answer"]]] for own in served.answer_batch(QUESTIONS, TEXT)]


@pytest.mark.parametrize(
    ("model", "inputs", "options", "status", "message"),
    [
        ("other", asked(), {}, 404, "there is no model 'other'; there are tiny and tiny-tokens"),
        (NAME, asked(), {"model_version": "2"}, 404, "model tiny has no version '2'; it has 1"),
        (NAME, [], {}, 422, "input question is missing"),
        (NAME, asked()[:1], {}, 422, "input context is missing"),
        (NAME, [*asked(), tensor("x", [1], "INT64")], {}, 422, "unknown input 'x'; this model has question, context"),
        (NAME, asked(["who?"] * 13), {}, 413, "input question has 13 rows; this server takes 12"),
        (NAME, asked(context="a" * 10**6), {}, 413, "the body is larger than the 100000 bytes that this server takes"),
        (NAME, asked([""]), {}, 422, "question is empty"),
        (NAME, asked([b"\xff"]), {}, 422, "input question: element 0 is not UTF-8"),
        (NAME, asked(), {"outputs": [InferRequestedOutput("x")]}, 422, "unknown output 'x'; this model has answer"),
        (NAME, asked(), {"outputs": [InferRequestedOutput("score", class_count=2)]}, 422, "score has 'classification'"),
        (NAME, asked(), {"sequence_id": 3}, 422, "unknown parameter 'sequence_id'"),
        (NAME, asked(), {"priority": 3}, 422, "unknown parameter 'priority'"),
        (NAME, asked(), {"parameters": {"length_config": "no"}}, 422, "unknown length configuration 'no'"),
        (NAME, asked(), {"parameters": {"budget_ms": 0}}, 422, "budget_ms must be more than 0"),
        (NAME, asked(), {"timeout": 1}, 504, "deadline"),
        (TOKENS, [tensor("input_ids", IDS, "INT32")], {}, 422, "input_ids: datatype must be INT64, not 'INT32'"),
        (TOKENS, [tensor("input_ids", [2, 3], "INT64")], {}, 422, "shape must be a list of 2 integers"),
        (TOKENS, [tensor("input_ids", [[2, 100]], "INT64")], {}, 422, "input_ids holds 100, which is outside 0..99"),
        (TOKENS, [tensor("input_ids", [[2, -1]], "INT64")], {}, 422, "input_ids holds -1, which is outside 0..99"),
        (TOKENS, [tensor("input_ids", [[2] * 129], "INT64")], {}, 422, "129 tokens are more than this model's 128"),
        (TOKENS, [tensor("input_ids", [[2] * 128] * 9, "INT64")], {}, 413, "has 1152 elements; this server takes 1024"),
        (TOKENS, [tensor("input_ids", [[2]] * 13, "INT64")], {}, 413, "input input_ids has 13 rows"),
        (TOKENS, [*tokens()[:1], tensor("attention_mask", [[1, 1]], "INT64")], {}, 422, "attention_mask has shape"),
        (TOKENS, tokens(), {"parameters": {"top_k": 2}}, 422, "unknown parameter 'top_k'"),
    ],
)  # fmt: skip
def test_errors(
    client: InferenceServerClient,
    model: str,
    inputs: list[InferInput],
    options: dict[str, Any],
    status: int,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException) as error:
        client.infer(model, inputs, **options)
    assert error.value.status() == str(status)
    assert message in error.value.message()
    client.infer(NAME, asked())  # nothing else is affected


def test_shared_memory_is_refused(client: InferenceServerClient) -> None:
    shared = InferInput("question", [1], "BYTES")
    shared.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="has 'shared_memory_region', which this server does not know"):
        client.infer(NAME, [shared, *asked()[1:]])


def test_other_endpoints_of_triton_are_not_there(client: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="there is nothing at /v2/models/tiny/config"):
        client.get_model_config(NAME)


@pytest.mark.parametrize(
    ("body", "headers", "status", "error_type", "message"),
    [
        (b"{", {}, 400, "malformed", "not usable JSON"),
        (b'{"inputs": [], "id": NaN}', {}, 400, "malformed", "NaN"),
        (b"{}", {"Inference-Header-Content-Length": "9"}, 400, "malformed", "at most the body's 2"),
        (b"abc", {"Content-Encoding": "gzip"}, 400, "malformed", "not gzip, as Content-Encoding says"),
        (b"abc", {"Content-Encoding": "br"}, 415, "unsupported_media_type", "must be gzip, deflate or identity"),
        (zlib.compress(b"a" * 10**7), {"Content-Encoding": "deflate"}, 413, "too_large", "when it is decompressed"),
        (b"{}", {}, 422, "invalid_input", "inputs must be a list of objects, not null"),
    ],
)
def test_errors_of_other_clients(
    address: str, body: bytes, headers: dict[str, str], status: int, error_type: str, message: str
) -> None:
    response = httpx.post(f"http://{address}/v2/models/{NAME}/infer", content=body, headers=headers)
    assert response.status_code == status
    assert response.json().keys() == {"error", "error_type"}
    assert response.json()["error_type"] == error_type
    assert message in response.json()["error"]


def test_names_of_models_may_hold_anything(address: str) -> None:
    response = httpx.get(f"http://{address}/v2/models/%7Bx%7D%20{{0}}")
    assert response.status_code == 404
    assert response.json()["error"] == "there is no model '{x} {0}'; there are tiny and tiny-tokens"


def test_json_of_a_curl_call(address: str, served: QuestionAnswerer) -> None:
    body = {
        "inputs": [
            {"name": "question", "shape": [1], "datatype": "BYTES", "data": ["who?"]},
            {"name": "context", "shape": [1], "datatype": "BYTES", "data": [TEXT]},
        ],
        "outputs": [{"name": "answer"}],
    }
    response = httpx.post(f"http://{address}/v2/models/{NAME}/versions/1/infer", content=json.dumps(body))
    (answer,) = served.answer_batch(["who?"], TEXT)[0]
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model_name": NAME,
        "model_version": "1",
        "outputs": [{"name": "answer", "datatype": "BYTES", "shape": [1, 1], "data": [answer["answer"]]}],
    }


def test_the_command_serves_both_models(served_bundle: Path, served: QuestionAnswerer) -> None:
    """Results and errors come through the socket of a worker process."""
    with serve_process(served_bundle, "--model-name", "letters") as server:
        with InferenceServerClient(server.url.removeprefix("http://")) as client:
            answers = client.infer("letters", asked()).as_numpy("answer")
            assert texts(answers) == [[own[0]["answer"]] for own in served.answer_batch(QUESTIONS, TEXT)]
            logits = client.infer("letters-tokens", tokens()).as_numpy("start_logits")
            direct = served.model(IDS, attention_mask=MASK, token_type_ids=SEGMENTS).start_logits
            np.testing.assert_array_equal(logits, direct, strict=True)
            with pytest.raises(InferenceServerException, match="input_ids holds 100, which is outside"):
                client.infer("letters-tokens", [tensor("input_ids", [[100]], "INT64")])
        assert server.stop() == (0, "")


def check_metadata(client: InferenceServerClient, model: str, response: dict[str, Any]) -> None:
    """A response has the types and numbers of dimensions that the metadata announces."""
    announced = {output["name"]: output for output in client.get_model_metadata(model)["outputs"]}
    for output in response["outputs"]:
        assert output["datatype"] == announced[output["name"]]["datatype"]
        assert len(output["shape"]) == len(announced[output["name"]]["shape"])


def texts(array: Any) -> Any:  # noqa: ANN401 - nested lists
    """An array of BYTES as lists of texts; elements that came as JSON are texts already."""
    if isinstance(array, np.ndarray):
        return [texts(row) for row in array]
    return array.decode() if isinstance(array, bytes) else array
