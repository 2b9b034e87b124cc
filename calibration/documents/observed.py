"""What a reranker computes for the documents of a query: early states of [CLS], word matches, and the final logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.batches import batches_of, kept_by_layer, padded_length, stack
from dynamic_tinybert.runtime.encoder.compilation import compile_graph
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.encoder.gate import gate
from dynamic_tinybert.runtime.encoder.graph import kept_positions
from dynamic_tinybert.runtime.encoder.inputs import padded_to
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.outputs import check_finite
from dynamic_tinybert.runtime.encoder.plain_graph import rewriting
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead
from dynamic_tinybert.runtime.tasks.sequence_classification.pair_windows import ByDocument, Pair, pair_windows
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking
from dynamic_tinybert.runtime.tasks.sequence_classification.word_match import bm25
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

Floats = npt.NDArray[np.float32]
_STATE = "first_state."


@dataclass(frozen=True)
class Observed:
    """The different documents of one query; n documents of w windows.

    Attributes:
        states: State of [CLS] after the first 1, 2, … layers, float32 [w, H], by the number of these layers.
        match: `bm25` of each window, float32 [w].
        logits: Final logit of each window, float32 [w].
        documents: Which windows belong to which document.
        macs: Multiply-accumulates of each document up to each layer, this one included, int64 [layers, n].
        grades: How relevant each document is, float64 [n], one of them above 0; None if nobody has judged them.
    """

    states: Mapping[int, Floats]
    match: Floats
    logits: Floats
    documents: ByDocument
    macs: npt.NDArray[np.int64]
    grades: npt.NDArray[np.float64] | None

    @property
    def final(self) -> Floats:
        """Final logit of each document, that of its best window, float32 [n]."""
        return self.documents.best(self.logits)

    def early(self, head: EarlyHead) -> Floats:
        """The early score of each document, float32 [n]."""
        return self.documents.best(head.scores(self.match, self.states.get(head.layers)))

    def only(self, layers: int) -> Observed:
        """The same without the states after other numbers of layers, which take much memory."""
        return replace(self, states={layers: self.states[layers]} if layers else {})


class Observer:
    """Runs a model at one length configuration, all layers for all documents."""

    def __init__(self, model: LengthAdaptiveModel, length_config: str) -> None:
        """Compile a graph that gives the states, too."""
        self._model, self._config = model, length_config
        self._layers = model.bundle.shape.num_layers
        self._tokenize = WindowTokenizer(model.tokenizer_file, ("query", "document"))
        graph = model.specialised_graph(length_config, separate_after=range(self._layers - 1))
        with gate, rewriting(model.bundle):
            _give_states(graph, self._layers)
        properties = {name: value for name, value in model.execution.items() if name != "elastic"}
        self._graph = CompiledGraph(partial(compile_graph, graph, properties))

    def __call__(self, ranking: Ranking, *, batch_size: int) -> Observed:
        """Run the documents of a query; equal ones once, and long ones in windows.

        Raises:
            InvalidInputError: The model cannot read the query or a document.
            InferenceError: OpenVINO failed.
        """
        pairs = [(ranking.query, document) for document in ranking.documents]
        length = self._model.max_length
        windows = pair_windows(self._tokenize, pairs, "document", max_seq_len=length, doc_stride=min(length // 2, 128))
        documents = ByDocument(windows.values())
        sequences = documents.sequences
        count = len(sequences)
        shape = (count, self._model.bundle.shape.hidden_size)
        states = {layers: np.empty(shape, np.float32) for layers in range(1, self._layers)}
        logits, macs = np.empty(count, np.float32), np.empty((self._layers, count), np.int64)
        for indices in batches_of([len(sequence) for sequence in sequences], batch_size):
            batch = [sequences[i] for i in indices]
            padded = min(padded_length(len(batch[-1])), length)  # the last one is the longest
            outputs = self._graph.infer({name: padded_to(array, padded) for name, array in stack(batch).items()})
            check_finite(outputs, ["logits"], padded)
            for layers, own in states.items():
                own[indices] = outputs[f"{_STATE}{layers - 1}"]
            logits[indices] = outputs["logits"][:, 0]
            macs[:, indices] = self._macs(batch, kept_positions(outputs, padded), padded)
        return Observed(
            states, bm25(sequences), logits, documents, documents.sums(macs), _grades(ranking, list(windows))
        )

    def _macs(
        self, batch: Sequence[Window], positions: Mapping[int, npt.NDArray[np.int32]], padded: int
    ) -> npt.NDArray[np.int64]:
        """Multiply-accumulates of each window up to each layer, int64 [layers, windows]."""
        counts = {layer: (own < padded).sum(1) for layer, own in positions.items()}
        macs = []
        for row, window in enumerate(batch):
            kept = kept_by_layer({layer: int(own[row]) for layer, own in counts.items()}, len(window), self._layers)
            macs.append(
                [self._model.executed_macs(self._config, len(window), kept[: i + 1]) for i in range(self._layers)]
            )
        return np.array(macs, np.int64).T


def _grades(ranking: Ranking, pairs: Sequence[Pair]) -> npt.NDArray[np.float64] | None:
    """The grade of each different document, the highest of equal ones; None if no document of the query is relevant."""
    found: dict[str, float] = {}
    for document, grade in zip(ranking.documents, ranking.grades, strict=True):
        found[document] = max(grade, found.get(document, 0.0))
    grades = np.array([found[document] for _, document in pairs], np.float64)
    return grades if grades.any() else None


def _give_states(graph: ov.Model, layers: int) -> None:
    """Add outputs `first_state.{layer}`, float32 [B, H]: the states of the first token after all layers but the last.

    Raises:
        BundleFormatError: A layer's output is not in the graph.
    """
    nodes = NamedNodes(graph)
    results = []
    for layer in range(layers - 1):
        state = ops.gather(nodes[f"layer.{layer}.output"].output(0), np.int32(0), np.int32(1))
        state.output(0).get_tensor().set_names({f"{_STATE}{layer}"})
        results.append(ops.result(state))
    graph.add_results(results)
    graph.validate_nodes_and_infer_types()
