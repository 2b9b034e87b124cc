"""The routes of the Open Inference Protocol in the form of OpenAPI."""

from __future__ import annotations

from typing import Any

from dynamic_tinybert.serving.http.by_task import Kind
from dynamic_tinybert.serving.http.openapi import Paths, error_responses, json_request, json_response
from dynamic_tinybert.serving.settings import ServerSettings

from .models import MODELS, Model
from .requests import request_parameters
from .routes import MODEL_PATHS
from .tensors import DataType, TensorSpec

VERSION = "1"
"""The version of models in the paths of the description."""

BINARY = (
    "Inputs may also be sent as bytes after the JSON, and outputs be asked for as bytes, as in Triton's extension for "
    "binary tensors. The header Inference-Header-Content-Length then says how long the JSON is."
)
ELEMENTS: dict[DataType, dict[str, Any]] = {
    "BOOL": {"type": "boolean"},
    "INT64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "FP32": {"type": "number"},
    "FP64": {"type": "number"},
    "BYTES": {"type": "string"},
}
EXAMPLES: dict[str, Any] = {
    "question": ([1], ["Where do I live?"]),
    "context": ([1], ["My name is Clara and I live in Berkeley."]),
    "text": ([1], ["the fox was in the box"]),
    "input_ids": ([1, 5], [101, 2073, 102, 5014, 102]),
}
"""Shape and elements of an example of each required input."""


def protocol_v2_paths(bundle: Kind, settings: ServerSettings) -> Paths:
    """All paths for a kind of bundle, with the names of the models in them."""
    live, ready = ({"type": "object", "properties": {n: {"const": True}}, "required": [n]} for n in ("live", "ready"))
    paths = {
        "/v2": _get("v2_server", "The server, and the extensions of the protocol that it has.", _SERVER),
        "/v2/health/live": _get("v2_live", "Whether the server runs.", live),
        "/v2/health/ready": _get("v2_ready", "Whether requests are taken.", ready, 503),
    }
    for model in MODELS[bundle]:
        for place, template in enumerate(MODEL_PATHS):
            path = template.format(name=settings.model_name + model.suffix, version=VERSION)
            operation = f"{model.kind}_version" if place else model.kind
            paths[path] = _get(operation, "The tensors of a model.", _METADATA, 404, 503)
            paths[path + "/ready"] = _get(f"{operation}_ready", "Whether the model is ready.", ready, 404, 503)
            paths[path + "/infer"] = {"post": _infer(f"{operation}_infer", model, settings)}
    return paths


def _get(operation: str, text: str, schema: dict[str, Any], *statuses: int) -> dict[str, Any]:
    responses = {"200": json_response(text, schema), **error_responses(*statuses)}
    return {"get": {"operationId": operation, "summary": text, "responses": responses}}


def _infer(operation: str, model: Model, settings: ServerSettings) -> dict[str, Any]:
    response = json_response("The outputs that were asked for.", _response(model))
    response["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    example = {
        "inputs": [
            {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}
            for tensor in model.inputs
            if not tensor.optional
            for shape, data in (EXAMPLES[tensor.name],)
        ]
    }
    return {
        "operationId": operation,
        "summary": model.summary,
        "description": BINARY,
        "requestBody": json_request(_request(model, settings), example),
        "responses": {"200": response, **error_responses(400, 404, 408, 413, 415, 422, 429, 503, 504)},
    }


def _request(model: Model, settings: ServerSettings) -> dict[str, Any]:
    required = [tensor for tensor in model.inputs if not tensor.optional]
    flags = {"type": ["object", "null"], "properties": {"binary_data": {"type": "boolean"}}}
    output = {
        "type": "object",
        "properties": {
            "name": {"enum": [tensor.name for tensor in model.outputs]},
            "parameters": {**flags, "additionalProperties": False},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "model_name": {"const": settings.model_name + model.suffix},
            "id": {"type": ["string", "null"]},
            "parameters": {
                "type": ["object", "null"],
                "properties": request_parameters(model, settings),
                "additionalProperties": False,
            },
            "inputs": {
                "type": "array",
                "items": {"oneOf": [_input(tensor, settings.max_items) for tensor in model.inputs]},
                "minItems": len(required),
                "maxItems": len(model.inputs),
            },
            "outputs": {"type": ["array", "null"], "items": output, "maxItems": len(model.outputs)},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }


def _input(tensor: TensorSpec, max_rows: int) -> dict[str, Any]:
    elements = ELEMENTS[tensor.datatype]
    rows = {"type": "array", "items": elements, "minItems": 1}
    if len(tensor.shape) == 2:
        rows = {"oneOf": [rows, {"type": "array", "items": rows, "minItems": 1}]}
    size = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    shape = {"type": "array", "prefixItems": [{**size, "maximum": max_rows}], "items": size}
    return {
        "type": "object",
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": tensor.datatype},
            "shape": {**shape, "minItems": len(tensor.shape), "maxItems": len(tensor.shape)},
            "data": rows,
            "parameters": {"type": ["object", "null"], "maxProperties": 0},
        },
        "required": ["name", "datatype", "shape", "data"],
        "additionalProperties": False,
    }


def _response(model: Model) -> dict[str, Any]:
    outputs = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tensor.name},
                "datatype": {"const": tensor.datatype},
                "shape": {
                    "type": "array",
                    "items": {"type": "integer"},
                    "minItems": len(tensor.shape),
                    "maxItems": len(tensor.shape),
                },
                "data": {"type": "array", "items": ELEMENTS[tensor.datatype]},
            },
            "required": ["name", "datatype", "shape", "data"],
        }
        for tensor in model.outputs
    ]
    return {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"oneOf": outputs}},
        },
        "required": ["model_name", "model_version", "outputs"],
    }


_TEXTS = {"type": "array", "items": {"type": "string"}}
_SERVER = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "version": {"type": "string"}, "extensions": _TEXTS},
    "required": ["name", "version", "extensions"],
}
_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": list(ELEMENTS)},
        "shape": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["name", "datatype", "shape"],
}
_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "versions": _TEXTS,
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": _TENSOR},
    },
    "required": ["name", "versions", "platform", "inputs", "outputs"],
}
