"""Settings of the HTTP server: the one source of the options of `dynamic-tinybert serve` and of their variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dynamic_tinybert.runtime.common.checks import require_int, require_number
from dynamic_tinybert.runtime.common.errors import InvalidInputError

ENVIRONMENT_PREFIX = "DYNAMIC_TINYBERT_SERVE_"
LOG_LEVELS = ("error", "warning", "info", "debug")


def setting(default: Any, text: str, *, least: int | None = None, most: int | None = None) -> Any:  # noqa: ANN401
    """A field of `ServerSettings`: its default, its help text, and the range of its number."""
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """All that can be set of a server. The help text of each field says what it does.

    Raises:
        InvalidInputError: A value has the wrong type or is out of range.
    """

    bundle: str | None = setting(None, "Folder or Hub id of a bundle; by default the one that comes with the package.")
    model_name: str = setting("dynamic-tinybert", "Name of the model, as clients call it in /v2/models/NAME.")
    host: str = setting("127.0.0.1", "Address to listen on. 0.0.0.0 is reachable from other machines.")
    port: int = setting(8000, "Port to listen on; 0 takes one that is free.", least=0, most=65535)
    workers: int = setting(
        1, "Number of processes that run the model, each with an equal share of the threads.", least=1, most=256
    )
    num_threads: int | None = setting(
        None, "Number of CPU threads of all workers; by default as many as the server may use.", least=1
    )
    max_queued: int = setting(128, "Number of requests that may wait; further ones get status 429.", least=1)
    max_body_bytes: int = setting(8 * 2**20, "Maximum size of a request's body in bytes.", least=1)
    max_items: int = setting(256, "Maximum number of questions, texts or documents in one request.", least=1)
    max_characters: int = setting(500_000, "Maximum number of characters in all texts of one request.", least=1)
    max_top_k: int = setting(100, "Maximum number of answers to one question.", least=1)
    request_timeout_s: float = setting(
        60.0, "Seconds after which a request without a result gets status 504; requests may ask for less.", least=0
    )
    receive_timeout_s: float = setting(
        10.0, "Seconds in which the head of a request must have arrived, and then its body.", least=0
    )
    keep_alive_s: float = setting(75.0, "Seconds after which a connection without a request is closed.", least=0)
    drain_timeout_s: float = setting(
        30.0, "Seconds in which accepted requests may be finished after SIGTERM or SIGINT.", least=0
    )
    access_log: bool = setting(False, "Log a line for each request on standard error.")
    log_level: Literal["error", "warning", "info", "debug"] = setting(
        "warning", "Log messages of this level and above on standard error."
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name), str(one.type), one.metadata)
        if not re.fullmatch(r"\w[\w.-]*", self.model_name, re.ASCII):  # it is a part of paths
            raise InvalidInputError(
                "model_name must be letters, digits, points, hyphens and underscores, with none of the points and "
                f"hyphens first, not {self.model_name!r}"
            )


def environment_variable(name: str) -> str:
    """The environment variable that sets the field `name`."""
    return ENVIRONMENT_PREFIX + name.upper()


def _check(name: str, value: object, kind: str, metadata: Mapping[str, Any]) -> None:
    if value is None and kind.endswith("| None"):
        return
    kind = kind.removesuffix(" | None")
    if kind == "str":
        if not isinstance(value, str) or not value:
            raise InvalidInputError(f"{name} must be a text that is not empty, not {value!r}")
    elif kind == "bool":
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} must be True or False, not {value!r}")
    elif kind.startswith("Literal"):
        if value not in LOG_LEVELS:
            raise InvalidInputError(f"{name} must be one of {', '.join(LOG_LEVELS)}, not {value!r}")
    elif kind == "float":
        if require_number(name, value) <= metadata["least"]:
            raise InvalidInputError(f"{name} must be more than {metadata['least']} seconds, not {value!r}")
    elif require_int(name, value, metadata["least"]) > (most := metadata["most"] or require_int(name, value, 0)):
        raise InvalidInputError(f"{name} must be at most {most}, not {value!r}")
