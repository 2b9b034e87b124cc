"""Score the documents of a query, but run only those to the end that may come first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.batches import batches_of, stack
from dynamic_tinybert.runtime.encoder.gate import gate
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.stages import FirstStage, StagedModel
from dynamic_tinybert.runtime.tasks.windows import Window

from .competition import staying
from .early_heads import EarlyHead, early_heads_of
from .inference import logits_of, run_texts
from .labels import Labels
from .pair_windows import ByDocument
from .task import ClassificationOutput
from .word_match import bm25


class DocumentDropping:
    """Drops documents by the early heads of a bundle. Stages of the model are compiled on first use. Thread-safe.

    Attributes:
        heads: The early heads by length configuration.
    """

    def __init__(self, model: LengthAdaptiveModel, labels: Labels) -> None:
        """Read the heads from the bundle of a model with one output, which `labels` describes.

        Raises:
            BundleError: The manifest cannot be read, or its early heads break a rule of the format.
        """
        self._model, self._labels = model, labels
        found = early_heads_of(model.bundle)
        self.heads = {} if found is None else found.heads
        self._staged: dict[str, StagedModel] = {}
        self._lock = threading.Lock()

    def logits(
        self,
        model: LengthAdaptiveModel,
        windows: Sequence[Sequence[Window]],
        top_n: int,
        length_config: str | LengthConfig | Sequence[float] | None,
        *,
        batch_size: int,
    ) -> dict[int, np.float32] | None:
        """The final logits of the documents of a query that are not dropped.

        Args:
            model: Runs the documents that stay, where others leave before the first layer. It may be another object
                than that of this class, such as one whose calls wait for turns; then none leaves after a layer.
            windows: The windows of each document; no two documents are equal.
            top_n: Number of documents that are wanted.
            length_config: Which tokens each layer keeps.
            batch_size: Maximum number of windows that run at once.

        Returns:
            The logits by document, at least ``min(top_n, len(windows))`` of them; None if nothing would be dropped: the
            bundle has no head for the length configuration that `model` can run, no margin for so many places, or
            there are no more documents than places.
        """
        name = self._model.bundle.default_length_config if length_config is None else length_config
        head = self.heads.get(name) if isinstance(name, str) else None
        places = None if head is None else head.places(top_n)
        if head is None or places is None or places >= len(windows) or (head.layers and model is not self._model):
            return None
        documents = ByDocument(windows)
        if not head.layers:
            early = documents.best(head.scores(bm25(documents.sequences)))
            chosen = staying(early, places, head.margins[places])
            sequences = [documents.sequences[i] for i in documents.windows_of(chosen)]
            outputs = run_texts(model, sequences, self._labels, length_config=name, batch_size=batch_size)
            logits = logits_of(outputs)[:, 0]
        else:
            staged = self._stages(str(name), head)
            between = start(staged, documents.sequences, batch_size=batch_size)
            states = np.stack([own.batch.first_states[own.row] for own in between])
            early = documents.best(head.scores(bm25(documents.sequences), states))
            chosen = staying(early, places, head.margins[places])
            numbers = documents.windows_of(chosen)
            lengths = [len(documents.sequences[i]) for i in numbers]
            logits = finish(staged, [between[i] for i in numbers], lengths, batch_size=batch_size)
        return dict(zip(chosen, documents.best(logits, chosen), strict=True))

    def warm_up(self, length_config: str) -> None:
        """Compile the stages of a length configuration before the first request needs them, if it has any."""
        if (head := self.heads.get(length_config)) is not None and head.layers:
            self._stages(length_config, head)

    def _stages(self, name: str, head: EarlyHead) -> StagedModel:
        with gate, self._lock:  # within the gate, so that no lock is held at a fork
            if name not in self._staged:
                self._staged[name] = StagedModel(self._model, name, after_layer=head.layers - 1)
            return self._staged[name]


@dataclass(frozen=True)
class Halfway:
    """A window between the stages: its batch, and its row there."""

    batch: FirstStage
    row: int


def start(staged: StagedModel, sequences: Sequence[Window], *, batch_size: int) -> list[Halfway]:
    """Run the first stage on all windows; results are in their order."""
    found: dict[int, Halfway] = {}
    for indices in batches_of([len(sequence) for sequence in sequences], batch_size):
        batch = staged.first(**stack([sequences[i] for i in indices]))
        found.update({index: Halfway(batch, row) for row, index in enumerate(indices)})
    return [found[i] for i in range(len(sequences))]


def finish(
    staged: StagedModel, windows: Sequence[Halfway], lengths: Sequence[int], *, batch_size: int
) -> npt.NDArray[np.float32]:
    """Run the later stage; returns the logits, float32 [n], in the order of `windows`, which have `lengths`."""
    logits = np.empty(len(windows), np.float32)
    for indices in batches_of(lengths, batch_size):
        rows = FirstStage.joined([windows[i].batch.rows([windows[i].row]) for i in indices])
        output: ClassificationOutput = staged.later(rows)
        logits[indices] = output.logits[:, 0]
    return logits
