"""What calls of a model took, in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import kept_by_layer
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls of a model took.

    Attributes:
        tokens: Number of real tokens of all inputs.
        kept: For each layer, the number of these tokens that it passed on; empty before the first call.
    """

    tokens: int = 0
    kept: tuple[int, ...] = ()

    def __add__(self, other: Usage) -> Usage:
        if not self.kept:
            return other
        return Usage(self.tokens + other.tokens, tuple(map(sum, zip(self.kept, other.kept, strict=True))))


@dataclass(frozen=True, slots=True)
class Computed(Generic[Result]):
    """A result, and what computing it took.

    Attributes:
        result: The result.
        length_config: Name of the length configuration that ran; None if it has no name.
        tokens: As in `Usage`.
        kept: As in `Usage`.
    """

    result: Result
    length_config: str | None
    tokens: int
    kept: tuple[int, ...]


def usage_of(
    model: LengthAdaptiveModel,
    output: Any,  # noqa: ANN401 - a `ModelOutput`
    input_ids: npt.NDArray[np.int64],
    attention_mask: npt.NDArray[np.int64] | None,
) -> Usage:
    """What a call of a model took, from its output and its inputs, [B, L]."""
    length = input_ids.shape[1]  # fillers have this position
    tokens = input_ids.size if attention_mask is None else int(np.count_nonzero(attention_mask))
    kept = {layer: int((positions < length).sum()) for layer, positions in output.kept_positions.items()}
    return Usage(tokens, kept_by_layer(kept, tokens, model.bundle.shape.num_layers))


def name_that_ran(model: LengthAdaptiveModel, length_config: object) -> str | None:
    """The name of a length configuration that a caller gave; None, the bundle's default, included."""
    name = model.bundle.default_length_config if length_config is None else length_config
    return name if isinstance(name, str) else None
