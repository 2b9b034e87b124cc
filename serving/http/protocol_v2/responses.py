"""Responses to requests for inference: from tensors to the body's bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dynamic_tinybert.serving.jobs import ModelFacts

from .models import Arrays, Model
from .requests import InferRequest
from .tensors import to_binary, to_json


def response_body(model: Model, facts: ModelFacts, request: InferRequest, tensors: Arrays) -> tuple[bytes, int | None]:
    """The body of a response.

    Args:
        model: The model that has run.
        facts: What the server says about the bundle behind it.
        request: What was asked for.
        tensors: The model's outputs; those that were asked for are among them.

    Returns:
        The body, and the size of the JSON in it; None if there is nothing else in it.
    """
    datatypes = {spec.name: spec.datatype for spec in model.outputs}
    binary: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for output, is_binary in request.outputs.items():
        array, datatype = tensors[output], datatypes[output]
        entry: dict[str, Any] = {"name": output, "datatype": datatype, "shape": list(array.shape)}
        if is_binary:
            binary.append(to_binary(datatype, array))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = to_json(array)
        outputs.append(entry)
    head = _head(facts.name + model.suffix, facts.version, request.id, outputs)
    return b"".join((head, *binary)), len(head) if binary else None


def _head(name: str, version: str, request_id: str | None, outputs: Sequence[dict[str, Any]]) -> bytes:
    identity = {} if request_id is None else {"id": request_id}
    response = {"model_name": name, "model_version": version, **identity, "outputs": outputs}
    return json.dumps(response, ensure_ascii=False, allow_nan=False).encode()
