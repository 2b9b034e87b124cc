"""Tiny rerankers and classifiers that tests serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph

from .classifiers import classifier_bundle, tiny_classifier

QUERY = "who was in the a"
DOCUMENTS = ("the a was in 2 1", "the b was in 3 3 and the c", "where", "the b was in 3 3 and the c", "a b c d e f g")
CONFIGS = {"half": LengthConfig((1, 0.5, 0.3))}


def reranker_bundle(folder: Path) -> Path:
    """A bundle of one output, with the length configurations full and half."""
    return classifier_bundle(folder, tiny_classifier(1), CONFIGS)


def labels_bundle(folder: Path, labels: int = 3) -> Path:
    """A bundle of several outputs, likewise."""
    return classifier_bundle(folder, tiny_classifier(labels), CONFIGS)


def loaded(bundle: Path) -> LengthAdaptiveModel:
    """A bundle with one thread."""
    return LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)


class HeldGraphs:
    """Runs of graphs, each of which can be kept from going on."""

    def __init__(self) -> None:
        self.rows: list[int] = []  # of each run, when it began
        self.began = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def run(self, infer: Any, graph: CompiledGraph, inputs: Any) -> Any:  # noqa: ANN401 - those of `CompiledGraph.infer`
        self.rows.append(len(inputs["input_ids"]))
        self.began.release()
        assert self._gate.acquire(timeout=120)
        return infer(graph, inputs)

    def let(self, runs: int) -> None:
        """Let some runs go on."""
        self._gate.release(runs)


@contextmanager
def held_graphs() -> Iterator[HeldGraphs]:
    """All runs of graphs wait until they are let."""
    held, infer = HeldGraphs(), CompiledGraph.infer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledGraph, "infer", lambda graph, inputs: held.run(infer, graph, inputs))
        try:
            yield held
        finally:
            held.let(1000)
