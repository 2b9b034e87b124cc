"""When windows of a long context leave: the numbers that a calibration finds for a length configuration."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .files import MANIFEST

COMPETITION = "window_competition"
"""Its key in a length configuration of the manifest."""

_LARGEST = 1_000_000  # logits are far smaller


@dataclass(frozen=True, slots=True)
class WindowCompetition:
    """When windows leave, see `docs/long-documents.md`.

    Attributes:
        after_layer: The layer in which windows leave, before its feed-forward part; its scorer decides.
        margin: A window leaves there if the logit of its most important token is more than this below the largest one
            in any window so far.
        sure: No more windows run once the best answer's advantage over no answer is at least this …
        match: … plus this times the next window's match with the question, of 0 to 1.
    """

    after_layer: int
    margin: float
    sure: float
    match: float

    def to_json(self) -> dict[str, int | float]:
        """The entry of the manifest."""
        return asdict(self)


def competition_of(entry: Mapping[str, Any], num_layers: int) -> WindowCompetition | None:
    """The competition in a length configuration's entry of a manifest; None if it has none.

    Raises:
        BundleFormatError: A key is missing or unknown, or a value is not a number or out of range.
    """
    found = entry.get(COMPETITION)
    if found is None:
        return None
    names = tuple(WindowCompetition.__dataclass_fields__)
    if type(found) is not dict or sorted(found) != sorted(names):
        raise BundleFormatError(
            f"{MANIFEST}: {COMPETITION} must be null or an object with {', '.join(names)}, not {reprlib.repr(found)}"
        )
    layer = found["after_layer"]
    if type(layer) is not int or not 0 <= layer < num_layers - 1:
        raise BundleFormatError(
            f"{MANIFEST}: after_layer of {COMPETITION} must be a layer before the last, 0 to {num_layers - 2}, "
            f"not {layer!r:.60}"
        )
    for name in names[1:]:
        value = found[name]
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise BundleFormatError(
                f"{MANIFEST}: {name} of {COMPETITION} must be a number between -1e6 and 1e6, not {value!r:.60}"
            )
    return WindowCompetition(layer, *(float(found[name]) for name in names[1:]))
