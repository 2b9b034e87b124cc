"""Requests for inference become checked tensors and parameters, or are refused with a message."""

import copy
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.http.protocol_v2.decompression import decompressed
from dynamic_tinybert.serving.http.protocol_v2.models import ANSWERS, MODELS, TOKENS, Model
from dynamic_tinybert.serving.http.protocol_v2.requests import InferRequest, parse_request
from dynamic_tinybert.serving.jobs import ModelFacts
from dynamic_tinybert.serving.settings import ServerSettings

SETTINGS = ServerSettings(max_items=3)
FACTS = ModelFacts(
    name="m",
    version="1",
    task="question_answering",
    labels=(),
    max_length=4,
    vocab_size=100,
    num_layers=3,
    length_configs={},
    default_length_config="full",
    quantization={},
    cpu="",
    kernels="",
    threads=1,
    versions={},
)
QUESTION = {"name": "question", "shape": [2], "datatype": "BYTES", "data": ["who?", "where?"]}
CONTEXT = {"name": "context", "shape": [1], "datatype": "BYTES", "data": ["Ada was born in London."]}
IDS = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 5, 3]}
ASKED = {"inputs": [QUESTION, CONTEXT]}
CHOSEN = ["answer", "score", "start", "end"]


def parsed(request: object, model: Model = ANSWERS, raw: bytes = b"") -> InferRequest:
    head = json.dumps(request).encode()
    return parse_request(head + raw, str(len(head)) if raw else None, model, FACTS, SETTINGS)


def test_a_request_of_json() -> None:
    request = parsed({**ASKED, "id": "7", "parameters": {"top_k": 3, "length_config": "half", "timeout_ms": 5}})
    assert request.id == "7"
    assert request.inputs["question"].tolist() == ["who?", "where?"]
    assert request.inputs["context"].tolist() == ["Ada was born in London."]
    assert request.options == {"top_k": 3, "length_config": "half"}
    assert request.timeout_ms == 5
    assert request.outputs == dict.fromkeys(CHOSEN, False)


def test_binary_inputs_stand_after_the_json_in_their_order() -> None:
    tensors = {"token_type_ids": [0, 1], "input_ids": [2, 2**40], "attention_mask": [1, 0]}
    inputs: list[dict[str, Any]] = [
        {"name": name, "shape": [1, 2], "datatype": "INT64", "parameters": {"binary_data_size": 16}} for name in tensors
    ]
    inputs[1] = {"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [[2, 2**40]]}
    raw = b"".join(np.array(tensors[name], "<i8").tobytes() for name in ("token_type_ids", "attention_mask"))
    request = parsed({"inputs": inputs}, TOKENS, raw)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {k: [v] for k, v in tensors.items()}
    job = TOKENS.job(request.inputs, {"length_config": [1, 0.5]})
    assert job.length_config == (1, 0.5)  # type: ignore[union-attr]


def test_outputs_are_chosen_and_ordered() -> None:
    outputs = [{"name": "end", "parameters": {"binary_data": True}}, {"name": "answer", "parameters": None}]
    assert list(parsed({**ASKED, "outputs": outputs}).outputs.items()) == [("end", True), ("answer", False)]
    both = {**ASKED, "outputs": [*outputs, {"name": "score", "parameters": {"binary_data": False}}]}
    both["parameters"] = {"binary_data_output": True}
    assert parsed(both).outputs == {"end": True, "answer": True, "score": False}


@pytest.mark.parametrize(
    ("parameters", "more"),
    [
        ({"budget_ms": 20}, ["length_config", "ms", "budget_met"]),
        ({"max_f1_loss": 1}, ["length_config", "ms"]),
        ({"budget_ms": 20, "max_f1_loss": 1}, ["length_config", "ms", "budget_met"]),
        ({"budget_ms": None}, []),
        (None, []),
    ],
)
def test_a_budget_has_more_outputs(parameters: object, more: list[str]) -> None:
    assert list(parsed({**ASKED, "parameters": parameters}).outputs) == CHOSEN + more


def test_time_limits() -> None:
    assert parsed({**ASKED, "parameters": {"timeout": 2500}}).timeout_ms == 2.5
    assert parsed(ASKED).timeout_ms is None
    with pytest.raises(InvalidInputError, match="timeout and timeout_ms set the same thing"):
        parsed({**ASKED, "parameters": {"timeout": 2500, "timeout_ms": 2.5}})


def test_one_context_serves_all_questions() -> None:
    job = ANSWERS.job(parsed(ASKED).inputs, {})
    assert job.contexts == ("Ada was born in London.",) * 2  # type: ignore[union-attr]


def test_other_numbers_of_contexts_are_refused() -> None:
    context = {**CONTEXT, "shape": [3], "data": ["a", "b", "c"]}
    with pytest.raises(InvalidInputError, match="input context has 3 texts for 2 questions"):
        ANSWERS.job(parsed({"inputs": [QUESTION, context]}).inputs, {})


def changed(tensor: Mapping[str, Any], **fields: object) -> dict[str, Any]:
    return {"inputs": [{**tensor, **fields}, CONTEXT]}


def without(tensor: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {"inputs": [{name: value for name, value in tensor.items() if name not in names}, CONTEXT]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "the request must be an object, not a list"),
        ({}, "inputs must be a list of objects, not null"),
        ({"inputs": []}, "input question is missing"),
        ({"inputs": [QUESTION]}, "input context is missing"),
        ({"inputs": [QUESTION, QUESTION]}, "input question is given twice"),
        ({"inputs": [3]}, "an input must be an object, not the number 3"),
        ({"inputs": ASKED}, "inputs must be a list of objects, not an object"),
        ({**ASKED, "id": 5}, "id must be a text, not the number 5"),
        ({**ASKED, "output": []}, "the request has 'output', which this server does not know; it knows model_name"),
        ({**ASKED, "model_name": "n"}, "model_name is 'n', but the path asks m"),
        (changed(QUESTION, name="x"), "unknown input 'x'; this model has question, context"),
        (changed(QUESTION, name=["x"]), "unknown input a list; this model has question, context"),
        (changed(QUESTION, datatype="INT64"), "input question: datatype must be BYTES, not 'INT64'"),
        (changed(QUESTION, shape=[3]), r"data has 2 elements, but shape \[3\] has 3"),
        (changed(QUESTION, dtype="BYTES"), "an input has 'dtype'"),
        (without(QUESTION, "shape"), "shape must be a list of 1 integers"),
        (without(QUESTION, "datatype"), "datatype must be BYTES, not null"),
        (without(QUESTION, "data"), "needs either data or the parameter binary_data_size"),
        (changed(QUESTION, parameters={"binary_data_size": 4}), "needs either data or the parameter binary_data_size"),
        (changed(QUESTION, parameters={"shared_memory_region": "a"}), "question has 'shared_memory_region', which"),
        ({**ASKED, "outputs": {}}, "outputs must be a list of objects"),
        ({**ASKED, "outputs": [{"name": "x"}]}, "unknown output 'x'; this model has answer, score, start, end,"),
        ({**ASKED, "outputs": [{"name": "end"}, {"name": "end"}]}, "output end is given twice"),
        ({**ASKED, "outputs": [{"name": "ms"}]}, "output ms is there only with the parameter budget_ms or max_f1_loss"),
        ({**ASKED, "outputs": [{"name": "end", "parameters": {"classification": 2}}]}, "end has 'classification'"),
        ({**ASKED, "outputs": [{"name": "end", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({**ASKED, "parameters": {"binary_data_output": "yes"}}, "binary_data_output must be true or false"),
        ({**ASKED, "parameters": {"sequence_id": 5}}, "unknown parameter 'sequence_id'; there are length_config,"),
        ({**ASKED, "parameters": {"budget_ms": -1}}, "budget_ms must be more than 0"),
        ({**ASKED, "parameters": {"timeout": 0}}, "timeout must be an int of at least 1"),
        ({**ASKED, "parameters": [1]}, "parameters must be an object"),
    ],
)  # fmt: skip
def test_wrong_requests(request_: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parsed(request_)


@pytest.mark.parametrize(
    ("sizes", "raw", "message"),
    [
        ([-1], b"12345678", "binary_data_size must be an integer of at least 0, not the number -1"),
        ([8.0], b"12345678", "binary_data_size must be an integer of at least 0, not the number 8.0"),
        ([None], b"12345678", "binary_data_size must be an integer of at least 0, not null"),
        ([9], b"12345678", "binary_data_size is the number 9, but 8 bytes are left"),
        ([2**70], b"12345678", "but 8 bytes are left"),
        ([8], b"12345678", r"binary_data_size is 8, but shape \[1, 3\] of INT64 has 24 bytes"),
        ([24], b"12345678" * 4, "8 bytes after the JSON belong to no input"),
        ([24, 24], b"12345678" * 5, "input attention_mask: binary_data_size is the number 24, but 16 bytes are left"),
    ],
)
def test_wrong_sizes_of_binary_tensors(sizes: list[object], raw: bytes, message: str) -> None:
    inputs = [
        {"name": name, "shape": [1, 3], "datatype": "INT64", "parameters": {"binary_data_size": size}}
        for name, size in zip(("input_ids", "attention_mask"), sizes, strict=False)
    ]
    with pytest.raises(InvalidInputError, match=message):
        parsed({"inputs": inputs}, TOKENS, raw)


@pytest.mark.parametrize(
    ("length", "body"), [("-1", b"{}"), ("3", b"{}"), ("9" * 5000, b"{}"), ("two", b"{}"), ("0", b"")]
)
def test_wrong_lengths_of_the_json(length: str, body: bytes) -> None:
    with pytest.raises(HTTPException, match="400: Inference-Header-Content-Length"):
        parse_request(body, length, ANSWERS, FACTS, SETTINGS)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"\xff", b"[" * 10**5, b"{}x", b'"\\ud800"']
)
def test_malformed_json(body: bytes) -> None:
    with pytest.raises(HTTPException, match="400"):
        parse_request(body, None, ANSWERS, FACTS, SETTINGS)


def test_too_many_rows_are_refused_before_they_are_read() -> None:
    huge = changed(QUESTION, shape=[2**62])
    with pytest.raises(HTTPException, match="413: input question has 4611686018427387904 rows; this server takes 3"):
        parsed(huge)
    ids = {"inputs": [{**IDS, "shape": [1, 33], "data": [2] * 33}]}
    with pytest.raises(HTTPException, match="413: input input_ids has 33 elements; this server takes 32"):
        parsed(ids, TOKENS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SHOWN = MODELS["answers"]
NAMES = [spec.name for model in SHOWN for spec in (*model.inputs, *model.outputs)]
KEYS = ["inputs", "outputs", "parameters", "id", "name", "shape", "datatype", "data", "binary_data_size", "timeout"]
VALUES = st.sampled_from([*NAMES, "BYTES", "INT64", 0, 1, 2, 3, -1, 2**63, {"binary_data_size": 24}, ["a", "b"]]) | JSON
RAW = np.array([2, 5, 3], "<i8").tobytes()
BINARY_IDS = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "parameters": {"binary_data_size": 24}}


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Each list or object within a value, with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])  # type: ignore[index]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request in which something, if anything, was replaced, added or removed."""
    request = copy.deepcopy(draw(st.sampled_from([ASKED, *({"inputs": [ids]} for ids in (IDS, BINARY_IDS))])))
    for _ in range(draw(st.integers(0, 2))):
        where, key = draw(st.sampled_from(list(places(request))))
        match draw(st.sampled_from(["replace", "add", "remove"])):
            case "replace":
                where[key] = draw(VALUES)
            case "add" if isinstance(where, dict):
                where[draw(st.sampled_from(KEYS))] = draw(VALUES)
            case "add":
                where.append(draw(VALUES))
            case "remove":
                del where[key]
                break  # of what is left there may be nothing
    return json.dumps(request).encode()


RAWS = st.sampled_from([b"", RAW]) | st.binary(max_size=40)


@settings(max_examples=300)
@given(st.binary() | damaged(), RAWS, st.just("true") | st.none() | st.text(max_size=3), st.sampled_from(SHOWN))
def test_anything_is_a_request_or_refused(head: bytes, raw: bytes, length: str | None, model: Model) -> None:
    try:
        request = parse_request(head + raw, str(len(head)) if length == "true" else length, model, FACTS, SETTINGS)
        model.job(request.inputs, request.options)
    except HTTPException as error:
        event(f"refused with {error.status_code}")
        if error.status_code not in (400, 413):
            raise
    except InvalidInputError:
        event("refused with 422")
    else:
        event("accepted")
        assert set(request.outputs) <= {spec.name for spec in model.outputs}


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("Deflate", zlib.compress)])
def test_compressed_bodies(encoding: str, compress: Any) -> None:  # noqa: ANN401 - a function
    content = b"abc" * 1000
    body = compress(content)
    assert decompressed(body, encoding, len(content)) == content
    for wrong, status in (
        (body[:-1], 400),
        (body + b"x", 400),
        (b"x" + body, 400),
        (b"", 400),
        (compress(b"x" * 3001), 413),
    ):
        with pytest.raises(HTTPException, match=str(status)):
            decompressed(wrong, encoding, len(content))


def test_other_encodings() -> None:
    assert decompressed(b"abc", None, 3) == decompressed(b"abc", "identity", 3) == b"abc"
    with pytest.raises(HTTPException, match="415: Content-Encoding must be gzip, deflate or identity, not 'br'"):
        decompressed(b"abc", "br", 3)
