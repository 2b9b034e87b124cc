"""Score a classifier in training by labels, and a reranker by the order of its documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.runtime.batches import kept_by_layer, run_batches, stack
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.sequence_classification.inference import TextOutput
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels, sigmoid
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP, ndcg
from dynamic_tinybert.runtime.tasks.sequence_classification.task import ClassificationOutput
from dynamic_tinybert.training.reference_runs import run_reference
from dynamic_tinybert.training.tasks.task import ExampleScore

from .examples import GradedDocuments, LabelledText, TextInput, TrainingExample

_BATCH_SIZE = 32


class ScoredTexts:
    """Examples that models are measured on.

    Classes are scored by whether the most probable one is right, labels that go together by the share of them that is
    decided rightly, one output by how close it is to the label (for a regression, relative to four standard deviations
    of the labels), and rankings by nDCG@10. All are in points of 100.

    Args:
        examples: The examples, all of one kind.
        labels: The labels of the model.
    """

    def __init__(self, examples: Sequence[TrainingExample], labels: Labels) -> None:
        self._examples = examples
        self._labels = labels
        numbers = [own.label for own in examples if isinstance(own, LabelledText) and isinstance(own.label, float)]
        self._width = 4 * float(np.std(numbers)) or 1.0 if labels.problem_type == "regression" and numbers else 1.0

    @property
    def metric(self) -> str:
        """The name of the metric."""
        if isinstance(self._examples[0], GradedDocuments):
            return f"nDCG@{TOP}"
        return "closeness" if self._labels.kind == "score" else "accuracy"

    def scores(self, reference: ReferenceModel, length_config: LengthConfig) -> list[ExampleScore]:
        """Run a model on the examples and score its logits."""
        inputs = [own for example in self._examples for own in example.inputs]
        outputs = iter(_run(reference, inputs, length_config))
        num_layers = reference.model.config.num_hidden_layers
        scores = []
        for example in self._examples:
            found = list(islice(outputs, len(example.inputs)))
            lengths = map(len, example.inputs)
            kept = [(n, kept_by_layer(own.kept, n, num_layers)) for n, own in zip(lengths, found, strict=True)]
            scores.append(ExampleScore(self._score(example, np.stack([own.logits for own in found])), kept))
        return scores

    def _score(self, example: TrainingExample, logits: npt.NDArray[np.float32]) -> float:
        if isinstance(example, GradedDocuments):
            order = np.argsort(-logits[:, 0], kind="stable")
            return 100 * ndcg([example.grades[i] for i in order])
        (logit,) = logits
        if isinstance(example.label, frozenset):
            return 100 * float(np.mean((logit > 0) == np.isin(np.arange(len(logit)), list(example.label))))
        if self._labels.kind == "classes":
            return 100.0 * (int(logit.argmax()) == example.label)
        value = float(logit[0] if self._labels.problem_type == "regression" else sigmoid(logit)[0])
        return 100 * (1 - min(1.0, abs(value - example.label) / self._width))


def _run(reference: ReferenceModel, inputs: Sequence[TextInput], length_config: LengthConfig) -> list[TextOutput]:
    """The outputs of all inputs, in their order."""

    def run(batch: list[int]) -> ClassificationOutput:
        output = run_reference(reference, stack([inputs[i] for i in batch]), length_config)
        kept = {layer: positions.int().cpu().numpy() for layer, positions in output.kept.items()}
        return ClassificationOutput(output.outputs["logits"].cpu().numpy(), kept)

    def output_of(batch: ClassificationOutput, row: int, kept: Mapping[int, int]) -> TextOutput:
        return TextOutput(batch.logits[row], kept)

    return run_batches(run, [len(own) for own in inputs], output_of, batch_size=_BATCH_SIZE)
