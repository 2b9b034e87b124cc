"""Arguments for loading a model: how they become OpenVINO properties, and how a pickle stores them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import cpu
from .common.errors import InvalidInputError
from .cpu_quota import thread_properties

_SHORT_FORMS = {
    "num_threads": "INFERENCE_NUM_THREADS",
    "num_streams": "NUM_STREAMS",
    "performance_hint": "PERFORMANCE_HINT",
    "precision": "INFERENCE_PRECISION_HINT",
    "compiled_cache_dir": "CACHE_DIR",
}


def openvino_properties(short: Mapping[str, object], ov_config: Mapping[str, object] | None) -> dict[str, object]:
    """Merge properties given as arguments of `from_pretrained` with those in `ov_config`.

    Args:
        short: Properties by the argument names of `from_pretrained`; None for an argument that was not given.
        ov_config: Properties by OpenVINO's names.

    Returns:
        All given properties by OpenVINO's names.

    Raises:
        InvalidInputError: A property is given in both forms.
    """
    properties = dict(ov_config or {})
    for name, value in short.items():
        if value is None:
            continue
        if _SHORT_FORMS[name] in properties:
            raise InvalidInputError(f"{name} and ov_config[{_SHORT_FORMS[name]!r}] set the same property; give one")
        properties[_SHORT_FORMS[name]] = str(value) if isinstance(value, Path) else value
    return properties


def with_defaults(ov_config: Mapping[str, object] | None, *, precision: str | None = None) -> dict[str, object]:
    """Add defaults that suit single requests on this CPU to the OpenVINO properties that a caller gave.

    Args:
        ov_config: Properties by name.
        precision: Default precision of what is not INT8; None for the faster one on this CPU.
    """
    return {
        "INFERENCE_PRECISION_HINT": precision or cpu.best_float_precision(),
        "PERFORMANCE_HINT": "LATENCY",
        **thread_properties(ov_config),
        **(ov_config or {}),
    }


def reload_arguments(arguments: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load the same model in a process with another working directory.

    Args:
        arguments: The arguments that the model was loaded with, except the token, which must not be pickled.
        path: The folder that the bundle was loaded from.
    """
    again = dict(arguments)
    if again["id_or_path"] is not None and Path(again["id_or_path"]) == path:
        again["id_or_path"] = path.absolute()  # a Path, because a missing one is never looked up on the Hub
    for name in ("cache_dir", "compiled_cache_dir"):
        if again.get(name) is not None:
            again[name] = Path(again[name]).absolute()
    again["ov_config"] = dict(again["ov_config"] or {})
    return again


def load_pickled(kind: Any, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the model's class, which imports this
    """Load what was pickled, with the arguments of `from_pretrained` that the pickle holds."""
    return kind.from_pretrained(**arguments)
