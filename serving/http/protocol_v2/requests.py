"""Requests for inference: from the body's bytes to tensors and parameters, all of it checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE
from dynamic_tinybert.serving.http.body import parse_json
from dynamic_tinybert.serving.http.parameters import Schema, checked_parameters, parameter_schemas, shown
from dynamic_tinybert.serving.http.text_requests import option_schemas
from dynamic_tinybert.serving.jobs import ModelFacts
from dynamic_tinybert.serving.settings import ServerSettings

from .models import Arrays, Model
from .tensors import TensorSpec, checked_shape, from_binary, from_json

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the size of the JSON that stands before the bytes of binary tensors."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A checked request.

    Attributes:
        id: What the client calls it, if anything.
        inputs: The input tensors.
        outputs: The outputs to give, in this order; True for those as bytes.
        options: Parameters by name, those of time limits excepted.
        timeout_ms: Milliseconds in which the result is wanted; None if the client did not say.
    """

    id: str | None
    inputs: Arrays
    outputs: Mapping[str, bool]
    options: Mapping[str, Any]
    timeout_ms: float | None


def request_parameters(model: Model, settings: ServerSettings) -> dict[str, Schema]:
    """JSON Schema of each parameter of requests to a model."""
    known = parameter_schemas(settings) | option_schemas(settings, "raw_scores", "truncate")
    return {
        **{name: known[name] for name in model.parameters},
        "timeout": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": int(settings.request_timeout_s * 1e6),
            "description": "The same as timeout_ms in microseconds, as Triton's clients send it.",
        },
        "binary_data_output": {
            "type": ["boolean", "null"],
            "description": "Give all outputs as bytes, unless an output says otherwise.",
        },
    }


def parse_request(
    body: bytes, header_length: str | None, model: Model, facts: ModelFacts, settings: ServerSettings
) -> InferRequest:
    """Parse a request for inference.

    Args:
        body: The request's body: JSON, and the bytes of those inputs that are sent as such, in their order.
        header_length: The value of the header `HEADER_LENGTH`, if there is one.
        model: The model that is asked.
        facts: What the server says about the bundle behind it.
        settings: Limits of requests.

    Raises:
        HTTPException: 400 if the JSON or its length is malformed; 413 if a tensor has too many rows or token ids.
        InvalidInputError: Anything else is wrong; the message says what.
    """
    head, binary = _split(body, header_length)
    request = _object("the request", parse_json(head), ("model_name", "id", "parameters", "inputs", "outputs"))
    name = facts.name + model.suffix
    if request.get("model_name", name) != name:  # KServe's clients say it here, too
        raise InvalidInputError(f"model_name is {_quoted(request['model_name'])}, but the path asks {name}")
    if not isinstance(request.get("id"), str | None):
        raise InvalidInputError(f"id must be a text, not {shown(request['id'])}")
    parameters = checked_parameters(request.get("parameters"), request_parameters(model, settings))
    all_binary = parameters.pop("binary_data_output", False)
    timeout_ms = _timeout_ms(parameters)
    return InferRequest(
        request.get("id"),
        _inputs(request.get("inputs"), binary, model, facts, settings),
        _outputs(request.get("outputs"), model, parameters, all_binary),
        parameters,
        timeout_ms,
    )


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and the bytes after it."""
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[len(whole) :]
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length[:20]) > len(body):
        raise HTTPException(
            400,
            f"{HEADER_LENGTH} must be a number of bytes, at most the body's {len(body)}, not {header_length[:40]!r}",
        )
    length = int(header_length)
    if length == 0:
        raise HTTPException(
            400, f"{HEADER_LENGTH} is 0: a body without JSON needs a model with one input of one variable dimension"
        )
    return whole[:length], whole[length:]


def _timeout_ms(parameters: dict[str, Any]) -> float | None:
    """Take the time limit out of the parameters."""
    timeout_ms: float | None = parameters.pop("timeout_ms", None)
    timeout = parameters.pop("timeout", None)
    if timeout is not None and timeout_ms is not None:
        raise InvalidInputError("timeout and timeout_ms set the same thing; give one")
    return timeout_ms if timeout is None else timeout / 1000


def _inputs(entries: object, binary: memoryview, model: Model, facts: ModelFacts, settings: ServerSettings) -> Arrays:
    specs = {spec.name: spec for spec in model.inputs}
    arrays: dict[str, Any] = {}
    begin = 0
    for entry in _entries("inputs", entries):
        fields = _object("an input", entry, ("name", "shape", "datatype", "parameters", "data"))
        spec = specs[_name("input", fields, specs, arrays)]
        if fields.get("datatype") != spec.datatype:
            raise InvalidInputError(
                f"input {spec.name}: datatype must be {spec.datatype}, not {_quoted(fields.get('datatype'))}"
            )
        shape = checked_shape(spec, fields.get("shape"))
        _check_size(spec, shape, facts, settings)
        size = _binary_size(spec, fields, len(binary) - begin)
        if size is None:
            arrays[spec.name] = from_json(spec, shape, fields["data"])
        else:
            arrays[spec.name] = from_binary(spec, shape, binary[begin : begin + size])
            begin += size
    missing = [spec.name for spec in model.inputs if not spec.optional and spec.name not in arrays]
    if missing:
        raise InvalidInputError(f"input {missing[0]} is missing")
    if begin != len(binary):
        raise InvalidInputError(f"{len(binary) - begin} bytes after the JSON belong to no input")
    return arrays


def _check_size(spec: TensorSpec, shape: tuple[int, ...], facts: ModelFacts, settings: ServerSettings) -> None:
    """Refuse what is too large before it is read.

    Token ids run as one batch, which must not take more memory and time than a batch of a question's windows can.
    """
    if shape[0] > settings.max_items:
        raise HTTPException(413, f"input {spec.name} has {shape[0]} rows; this server takes {settings.max_items}")
    most = PIPELINE.batch_size * facts.max_length
    if spec.datatype == "INT64" and math.prod(shape) > most:
        raise HTTPException(
            413, f"input {spec.name} has {math.prod(shape)} elements; this server takes {most}: send several requests"
        )


def _binary_size(spec: TensorSpec, fields: Mapping[str, Any], left: int) -> int | None:
    """The number of bytes of an input; None if its elements are in the JSON."""
    parameters = _parameters(f"input {spec.name}", fields, "binary_data_size")
    if ("binary_data_size" in parameters) == ("data" in fields):
        raise InvalidInputError(f"input {spec.name} needs either data or the parameter binary_data_size")
    if "data" in fields:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise InvalidInputError(
            f"input {spec.name}: binary_data_size must be an integer of at least 0, not {shown(size)}"
        )
    if size > left:
        raise InvalidInputError(
            f"input {spec.name}: binary_data_size is {shown(size)}, but {left} bytes are left in the body after the "
            f"JSON, which ends where the header {HEADER_LENGTH} says"
        )
    return size


def _outputs(entries: object, model: Model, options: Mapping[str, Any], all_binary: bool) -> dict[str, bool]:
    """For each output that is wanted, in order, whether it is wanted as bytes."""
    names = [spec.name for spec in model.outputs]
    absent = model.absent(options)
    if entries is None or entries == []:
        return {name: all_binary for name in names if name not in absent}
    chosen: dict[str, bool] = {}
    for entry in _entries("outputs", entries):
        fields = _object("an output", entry, ("name", "parameters"))
        name = _name("output", fields, names, chosen)
        if name in absent:
            raise InvalidInputError(f"output {name} is there only with the parameter {absent[name]}")
        parameters = _parameters(f"output {name}", fields, "binary_data")
        binary = parameters.get("binary_data", all_binary)
        if not isinstance(binary, bool):
            raise InvalidInputError(f"output {name}: binary_data must be true or false, not {shown(binary)}")
        chosen[name] = binary
    return chosen


def _entries(what: str, entries: object) -> list[Any]:
    if not isinstance(entries, list):
        raise InvalidInputError(f"{what} must be a list of objects, not {shown(entries)}")
    return entries


def _object(what: str, value: object, keys: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what} must be an object, not {shown(value)}")
    unknown = next((key for key in value if key not in keys), None)
    if unknown is not None:
        raise InvalidInputError(
            f"{what} has {_quoted(unknown)}, which this server does not know; it knows {', '.join(keys)}"
        )
    return value


def _parameters(what: str, fields: Mapping[str, Any], known: str) -> dict[str, Any]:
    parameters = fields.get("parameters")
    return {} if parameters is None else _object(f"parameters of {what}", parameters, (known,))


def _name(what: str, fields: Mapping[str, Any], known: Collection[str], given: Collection[str]) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or name not in known:
        raise InvalidInputError(f"unknown {what} {_quoted(name)}; this model has {', '.join(known)}")
    if name in given:
        raise InvalidInputError(f"{what} {name} is given twice")
    return name


def _quoted(value: object) -> str:
    return repr(value[:100]) if isinstance(value, str) else shown(value)
