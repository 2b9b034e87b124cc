"""Rankings of random texts, and early heads put into a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.bundles.manifest import as_json, read_manifest, seal
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import (
    DOCUMENT_DROPPING,
    EarlyHead,
    EarlyHeads,
)

from support.classifiers import texts


def random_head(layers: int, margins: Mapping[int, float], seed: int = 0) -> EarlyHead:
    """A head for states of 32 numbers, or with 0 layers for words alone, that predicts nothing in particular."""
    weight = np.random.default_rng(seed).normal(size=32 if layers else 0).astype(np.float32)
    return EarlyHead(layers, 0.5, weight, 0.25, margins, 0.01, {})


def put_heads(folder: Path, heads: Mapping[str, EarlyHead]) -> Path:
    """Write early heads into the manifest of a bundle."""
    found = EarlyHeads(heads, 0.95, 299, "some.jsonl")
    seal(folder, as_json({**read_manifest(folder), DOCUMENT_DROPPING: found.to_json()}))
    return folder


def write_rankings(
    path: Path, queries: int, documents: int, *, seed: int = 0, groups: int = 0, judged: bool = False
) -> Path:
    """A file of rankings; query i is in group i modulo `groups`, or alone, and its first document may be relevant.

    Groups of another seed are others.
    """
    rows = []
    for i in range(queries):
        query, own = texts(1, seed + 1000 + i, (2, 5))[0], texts(documents, seed + 5000 + i, (3, 20))
        row: dict[str, object] = {"query": query, "documents": own}
        row |= {"group": f"g{seed}-{i % groups}"} if groups else {}
        rows.append(row | ({"relevant": [0]} if judged else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
