"""What a bundle's manifest says about dropping documents: an early score for each length configuration."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.bundles.files import MANIFEST
from dynamic_tinybert.runtime.bundles.manifest import get, read_manifest
from dynamic_tinybert.runtime.common.errors import BundleFormatError

DOCUMENT_DROPPING = "document_dropping"
"""The manifest's key."""

_LARGEST = 1_000_000  # logits are far smaller


@dataclass(frozen=True)
class EarlyHead:
    """A linear prediction of the final logit, and how far it can be trusted.

    It reads how well words match (`bm25`) and, after some layers, the state of [CLS].

    Attributes:
        layers: Number of layers that run before it, fewer than the model has; 0 to go by the words alone.
        match_weight: Weight of `bm25`.
        weight: float32 [H], weights of the state; [0] without layers.
        bias: Added to the sum.
        margins: For numbers of first places, ascending: by how much a document may lag behind the best one before it is
            dropped, as in `staying`.
        risk: Largest share of the relevance in the first places that is lost, expected for a new query.
        measured: What was measured when the margins were chosen, for information only.
    """

    layers: int
    match_weight: float
    weight: npt.NDArray[np.float32]
    bias: float
    margins: Mapping[int, float]
    risk: float
    measured: Mapping[str, Any]

    def scores(
        self, match: npt.NDArray[np.float32], states: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """The early scores of windows, float32 [n].

        Args:
            match: Their `bm25`, float32 [n].
            states: The states of their [CLS] after `layers` layers, float32 [n, H]; None without layers.
        """
        scores = np.float32(self.match_weight) * match + np.float32(self.bias)
        if states is not None:
            scores = scores + states @ self.weight
        return scores.astype(np.float32)

    def places(self, top_n: int) -> int | None:
        """The smallest number of places with a margin that covers the first `top_n`; None if there is none.

        A margin that keeps the first 10 places keeps the first 7, too.
        """
        return next((places for places in self.margins if places >= top_n), None)


@dataclass(frozen=True)
class EarlyHeads:
    """The early heads of a bundle.

    Attributes:
        heads: By name of the length configuration; a configuration without one drops no documents.
        confidence: Probability, over the draw of the queries that the margins come from, with which the risks hold.
        queries: Number of these queries.
        data: Where they come from.
    """

    heads: Mapping[str, EarlyHead]
    confidence: float
    queries: int
    data: str

    def to_json(self) -> dict[str, Any]:
        """The value of the manifest's key `DOCUMENT_DROPPING`."""
        return {
            "confidence": self.confidence,
            "queries": self.queries,
            "data": self.data,
            "length_configs": {
                name: {
                    "layers": head.layers,
                    "match_weight": float(head.match_weight),
                    "weight": [float(value) for value in head.weight],
                    "bias": float(head.bias),
                    "margins": {str(places): float(margin) for places, margin in head.margins.items()},
                    "risk": head.risk,
                    "measured": dict(head.measured),
                }
                for name, head in self.heads.items()
            },
        }


def early_heads_of(bundle: Bundle) -> EarlyHeads | None:
    """The early heads of a bundle; None if it has none.

    Raises:
        BundleError: The manifest cannot be read, or breaks a rule of docs/bundle-format.md.
    """
    manifest = read_manifest(bundle.path)
    if manifest.get(DOCUMENT_DROPPING) is None:
        return None
    entry = get(manifest, DOCUMENT_DROPPING, dict)
    configs = get(entry, "length_configs", dict)
    heads = {}
    for name in configs:
        if name not in bundle.length_configs:
            raise BundleFormatError(f"{MANIFEST}: {DOCUMENT_DROPPING} names no length configuration: {name[:60]!r}")
        heads[name] = _head(get(configs, name, dict), bundle)
    return EarlyHeads(
        heads,
        _number(entry, "confidence", 0, 1),
        get(entry, "queries", int),
        get(entry, "data", str),
    )


def _head(entry: Mapping[str, Any], bundle: Bundle) -> EarlyHead:
    layers, weight = get(entry, "layers", int), get(entry, "weight", list)
    if not 0 <= layers < bundle.shape.num_layers:
        raise BundleFormatError(
            f"{MANIFEST}: an early head is after 0 … {bundle.shape.num_layers - 1} layers, not after {layers}"
        )
    if len(weight) != (wanted := bundle.shape.hidden_size if layers else 0):
        raise BundleFormatError(
            f"{MANIFEST}: an early head after {layers} layers has {len(weight)} weights, not {wanted}"
        )
    margins, given = {}, get(entry, "margins", dict)
    for places in given:
        if not (places.isascii() and places.isdigit() and 0 < len(places) < 7 and int(places) > 0):
            raise BundleFormatError(f"{MANIFEST}: {reprlib.repr(places)} is no number of places that a margin is for")
        margins[int(places)] = _number(given, places, 0, _LARGEST)
    return EarlyHead(
        layers,
        _number(entry, "match_weight", -_LARGEST, _LARGEST),
        np.array([_number({"weight": value}, "weight", -_LARGEST, _LARGEST) for value in weight], np.float32),
        _number(entry, "bias", -_LARGEST, _LARGEST),
        dict(sorted(margins.items())),
        _number(entry, "risk", 0, 1),
        get(entry, "measured", dict),
    )


def _number(data: Mapping[str, Any], key: str, low: float, high: float) -> float:
    value: Any = data.get(key)
    if type(value) not in (int, float) or not low <= value <= high:  # not NaN either
        raise BundleFormatError(
            f"{MANIFEST}: {key} in {DOCUMENT_DROPPING} must be a number between {low:g} and {high:g}, not "
            f"{reprlib.repr(value)}"
        )
    return float(value)
