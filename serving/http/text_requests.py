"""What requests for labels and for orders of documents have in common: their options, and how these are checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.settings import ServerSettings

from .parameters import Schema, checked_parameters, parameter_schemas, shown


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request whose options are checked.

    Attributes:
        body: The body, an object with all required keys.
        options: The options that were given, by name, without `timeout_ms`.
        timeout_ms: Milliseconds in which the result is wanted; None if the client did not say.
    """

    body: Mapping[str, Any]
    options: Mapping[str, Any]
    timeout_ms: float | None

    @property
    def model_options(self) -> dict[str, Any]:
        """Those options that the model's methods have, too."""
        return {name: self.options[name] for name in ("length_config", "top_n") if name in self.options}


def option_schemas(settings: ServerSettings, *names: str) -> dict[str, Schema]:
    """JSON Schema of the options of these names, and of those that all requests have. All may be null."""

    def flag(text: str) -> Schema:
        return {"type": ["boolean", "null"], "description": text}

    known = {
        "raw_scores": flag("Give logits as scores."),
        "return_text": flag("Give the texts, too."),
        "return_documents": flag("Give the documents, too."),
        "top_n": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Maximum number of documents to give, the best ones; all by default.",
        },
        "truncate": flag(
            "Cut texts that are too long, which are refused otherwise. Documents are never cut: they are read in "
            "windows, of which the best counts."
        ),
        "truncation_direction": {
            "type": ["string", "null"],
            "enum": ["right", "Right", None],
            "description": "Texts are cut at their end.",
        },
        "model": {"type": ["string", "null"], "description": "Ignored: a server has one model."},
    }
    common = parameter_schemas(settings)
    return {name: known[name] for name in names} | {name: common[name] for name in ("length_config", "timeout_ms")}


def request_schema(texts: Mapping[str, Schema], options: Mapping[str, Schema]) -> Schema:
    """JSON Schema of a body with these texts, all required, and these options."""
    properties = {**texts, **options}
    return {"type": "object", "properties": properties, "required": list(texts), "additionalProperties": False}


def text_schema(settings: ServerSettings) -> Schema:
    """JSON Schema of a text."""
    return {"type": "string", "minLength": 1, "maxLength": settings.max_characters}


def parse_text_request(body: object, texts: Collection[str], schemas: Mapping[str, Schema]) -> TextRequest:
    """Check the keys of a body, and the values of its options.

    Args:
        body: The body.
        texts: Names of its required keys, which the caller checks.
        schemas: Of its options, by name.

    Raises:
        InvalidInputError: The body has another shape; the message says which it must have.
    """
    if not isinstance(body, dict):
        raise InvalidInputError(f"the body must be an object with {' and '.join(texts)}, not {shown(body)}")
    for name in texts:
        if name not in body:
            found = ", ".join(repr(key[:40]) for key in sorted(body)[:5]) or "(none)"
            raise InvalidInputError(f"the body has no {name}; its keys are {found}")
    options = checked_parameters({name: body[name] for name in body if name not in texts}, schemas)
    timeout_ms = options.pop("timeout_ms", None)
    if isinstance(options.get("length_config"), list):
        options["length_config"] = tuple(options["length_config"])
    return TextRequest(body, options, timeout_ms)


def checked_text(place: str, value: object) -> str:
    """A text of a body.

    Raises:
        InvalidInputError: It is of another type.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{place} must be a text, not {shown(value)}")
    return value


def checked_list(place: str, value: object) -> list[Any]:
    """A list of a body with at least one item.

    Raises:
        InvalidInputError: It is of another type, or empty.
    """
    if not isinstance(value, list):
        raise InvalidInputError(f"{place} must be a list, not {shown(value)}")
    if not value:
        raise InvalidInputError(f"{place} is an empty list; give at least one")
    return value
