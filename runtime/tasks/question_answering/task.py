"""Question answering as a task: the question is protected, and every token has a start and an end logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.encoder.compiled import Arrays
from dynamic_tinybert.runtime.encoder.graph_sizes import check_dynamic, check_node
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.ops import restore_logits
from dynamic_tinybert.runtime.encoder.patterns import Product
from dynamic_tinybert.runtime.encoder.task_graph import Rows
from dynamic_tinybert.runtime.tasks.task import KeptPositions


@dataclass(frozen=True)
class QuestionAnsweringOutput:
    """The model's outputs for a batch.

    Attributes:
        start_logits: float32 [B, L].
        end_logits: float32 [B, L].
        kept_positions: For each layer that may drop tokens, the input positions of the tokens that it passed on,
            int32 [B, n], ascending; rows with fewer than n tokens are filled up with L.
    """

    start_logits: npt.NDArray[np.float32]
    end_logits: npt.NDArray[np.float32]
    kept_positions: Mapping[int, npt.NDArray[np.int32]]


class QuestionAnswering:
    """The `Task` of BertForQuestionAnswering."""

    name = "question_answering"
    output_names = ("start_logits", "end_logits")
    first_token_only = False

    def check_head(self, model: ov.Model, nodes: NamedNodes) -> None:
        """Check that both outputs are [B, L], and the node `logits` is [B, L, 2]."""
        for name in self.output_names:
            check_dynamic(model.output(name), name)
        check_node(nodes["logits"], 3, {2: 2})

    def protected(self, nodes: NamedNodes) -> ov.Output:
        """[CLS], the question and its [SEP]: real tokens of the first segment."""
        first_segment = ops.convert(ops.equal(nodes["token_type_ids"], 0), np.float32)
        real = ops.convert(nodes["attention_mask"], np.float32)
        return ops.multiply(first_segment, real).output(0)

    def put_head(self, nodes: NamedNodes, rows: Rows) -> None:
        """Compute the logits of each token from the last state that it had."""
        head = Product.of(nodes["logits"])
        if head is None:
            raise BundleFormatError(
                "the node 'logits' is not a matrix product with a bias; export the checkpoint again"
            )
        weights = np.concatenate([head.weight, head.bias.reshape(-1, 1)], axis=1).astype(np.float32)
        logits = restore_logits(weights, rows.all_states, rows.fewer)
        for target in nodes["logits"].output(0).get_target_inputs():
            target.replace_source_output(logits)

    def output(self, arrays: Arrays, length: int, kept: KeptPositions) -> QuestionAnsweringOutput:
        """Start and end logits of the tokens that the caller gave."""
        return QuestionAnsweringOutput(arrays["start_logits"][:, :length], arrays["end_logits"][:, :length], kept)


QUESTION_ANSWERING = QuestionAnswering()
