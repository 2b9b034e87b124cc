"""Classification of a text or a pair of texts: [CLS] alone decides, and the first text of a pair is protected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.encoder.compiled import Arrays
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.task_graph import Rows
from dynamic_tinybert.runtime.tasks.task import KeptPositions


@dataclass(frozen=True)
class ClassificationOutput:
    """The model's outputs for a batch.

    Attributes:
        logits: One logit for each label, float32 [B, labels].
        kept_positions: For each layer that may drop tokens, the input positions of the tokens that it passed on,
            int32 [B, n], ascending; rows with fewer than n tokens are filled up with L.
    """

    logits: npt.NDArray[np.float32]
    kept_positions: Mapping[int, npt.NDArray[np.int32]]


class SequenceClassification:
    """The `Task` of BertForSequenceClassification."""

    name = "sequence_classification"
    output_names = ("logits",)
    first_token_only = True

    def check_head(self, model: ov.Model, nodes: NamedNodes) -> None:
        """Check that the output is [B, labels]."""
        logits = model.output("logits")
        shape, kind = logits.get_partial_shape(), logits.get_element_type()
        if kind != ov.Type.f32 or shape.rank != ov.Dimension(2) or shape[0].is_static or shape[1].is_dynamic:
            raise BundleFormatError(
                f"logits of the graph are {kind} of shape {shape}, but must be f32 of shape [?, number of labels]"
            )

    def protected(self, nodes: NamedNodes) -> ov.Output:
        """[CLS] and the last [SEP]; of a pair also the first text and its [SEP]."""
        real = ops.convert(nodes["attention_mask"], np.float32)
        second = ops.multiply(ops.convert(nodes["token_type_ids"], np.float32), real)
        number = ops.cumsum(real, np.int64(1))  # 1 for the first real token, 2 for the next …
        is_end = ops.logical_or(
            ops.equal(number, np.float32(1)), ops.equal(number, ops.reduce_sum(real, [1], keep_dims=True))
        )
        is_first_text = ops.logical_and(
            ops.equal(second, np.float32(0)), ops.greater(ops.reduce_max(second, [1], keep_dims=True), np.float32(0))
        )
        protected = ops.convert(ops.logical_or(is_end, is_first_text), np.float32)
        return ops.multiply(protected, real).output(0)

    def put_head(self, nodes: NamedNodes, rows: Rows) -> None:
        """The head stays as it is: it reads the only row that the last layer computes."""

    def output(self, arrays: Arrays, length: int, kept: KeptPositions) -> ClassificationOutput:
        """The logits of each input."""
        return ClassificationOutput(arrays["logits"], kept)


SEQUENCE_CLASSIFICATION = SequenceClassification()
