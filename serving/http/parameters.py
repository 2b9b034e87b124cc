"""The parameters of `POST /predict`: their schema, which is also what they are checked by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from dynamic_tinybert.runtime.common.checks import require_int, require_number
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.options import Merge
from dynamic_tinybert.serving.settings import ServerSettings

Schema = dict[str, Any]

_IGNORED = ("max_question_len",)


def parameter_schemas(settings: ServerSettings) -> dict[str, Schema]:
    """JSON Schema of each parameter, by name. All may be null, which is as if they were left out."""

    def integer(least: int, text: str, **more: int) -> Schema:
        return {"type": ["integer", "null"], "minimum": least, **more, "description": text}

    def boolean(text: str) -> Schema:
        return {"type": ["boolean", "null"], "description": text}

    return {
        "top_k": integer(1, "Maximum number of answers; above 1 a list is given.", maximum=settings.max_top_k),
        "doc_stride": integer(0, "Number of context tokens that neighbouring windows share."),
        "max_answer_len": integer(1, "Maximum length of an answer in tokens."),
        "max_seq_len": integer(1, "Maximum length of a window in tokens."),
        "max_question_len": integer(1, "Ignored: questions are never cut."),
        "handle_impossible_answer": boolean("Let the empty answer compete with the others."),
        "align_to_words": boolean("Widen answers to whole words."),
        "merge": {
            "type": ["string", "null"],
            "enum": [*get_args(Merge), None],
            "description": "Which answers count as the same one: those at the same position, or with the same text.",
        },
        "compete": boolean("Score answers over the whole text instead of over each window of a long one."),
        "length_config": {
            "type": ["string", "array", "null"],
            "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "description": "Which tokens each layer keeps: a name that GET /info lists, or one keep ratio per layer.",
        },
        "budget_ms": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "description": "Milliseconds that answering may take; the most accurate length configuration that is "
            "predicted to fit runs, or else the fastest.",
        },
        "max_f1_loss": {
            "type": ["number", "null"],
            "minimum": 0,
            "description": "Most points of F1 that may be lost against the length configuration full.",
        },
        "timeout_ms": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": settings.request_timeout_s * 1000,
            "description": "Milliseconds in which the answer is wanted; otherwise the request ends with status 504.",
        },
    }  # fmt: skip


def checked_parameters(parameters: object, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The given parameters without those that are null or ignored.

    Raises:
        InvalidInputError: It is not an object, or a parameter is unknown or does not fit its schema.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInputError(f"parameters must be an object, not {shown(parameters)}")
    for name in parameters:
        if name not in schemas:
            raise InvalidInputError(f"unknown parameter {name[:100]!r}; there are {', '.join(schemas)}")
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        _check(name, value, schemas[name])
    return {name: value for name, value in given.items() if name not in _IGNORED}


def shown(value: object) -> str:
    """A value of JSON in a message: short, and with JSON's names of types."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value)) or f"the number {str(value)[:40]}"


def _check(name: str, value: object, schema: Schema) -> None:
    kind = schema["type"][0]
    if kind == "boolean":
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} must be true or false, not {shown(value)}")
    elif kind == "string":
        _check_text(name, value, schema)
    else:
        _check_number(name, value, schema)


def _check_text(name: str, value: object, schema: Schema) -> None:
    if isinstance(value, list) and "array" in schema["type"]:
        for ratio in value:
            require_number(f"a keep ratio of {name}", ratio)
    elif not isinstance(value, str):
        kinds = "a name or a list of keep ratios" if "array" in schema["type"] else "a text"
        raise InvalidInputError(f"{name} must be {kinds}, not {shown(value)}")
    elif "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(repr(choice) for choice in schema["enum"] if choice)
        raise InvalidInputError(f"{name} must be one of {choices}, not {value[:100]!r}")


def _check_number(name: str, value: object, schema: Schema) -> None:
    if schema["type"][0] == "integer":
        number: float = require_int(name, value, schema["minimum"])
    else:
        number = require_number(name, value)
    least, above, most = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None and number <= above:
        raise InvalidInputError(f"{name} must be more than {above}, not {shown(value)}")
    if least is not None and number < least:
        raise InvalidInputError(f"{name} must be at least {least}, not {shown(value)}")
    if most is not None and number > most:
        raise InvalidInputError(f"{name} must be at most {most:g}, not {shown(value)}")
