"""The part of a task that the encoder's graph needs: which tokens are protected, and how the head is connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from .named_nodes import NamedNodes


@dataclass(frozen=True)
class Rows:
    """The states of the tokens in a graph whose layers drop some of them.

    Attributes:
        all_states: States of all tokens as they enter the first layer that drops some, float32 [B, L, H].
        fewer: For each layer that drops tokens, in order: the states of the tokens that it passed on, float32
            [B, n, H], as they enter the next such layer or leave the encoder; and their origins, int32 [B, n]: 1 + the
            position of each token in the original input, 0 for a filler.
    """

    all_states: ov.Output
    fewer: Sequence[tuple[ov.Output, ov.Output]]

    def first_token(self) -> ov.Output:
        """The last state that each sequence's first token, [CLS], had, float32 [B, H].

        If the task protects this token and keep ratios leave room for all protected tokens, it is the output of the
        last layer. If tokens are selected by the attention that they receive, any layer may have dropped [CLS].
        """
        state = ops.gather(self.all_states, 0, 1)
        for later, origins in self.fewer:
            went_on = ops.equal(ops.gather(origins, [0], 1), np.int32(1))  # a token at position 0 is still in row 0
            state = ops.select(went_on, ops.gather(later, 0, 1), state)
        return state.output(0)


class TaskGraph(Protocol):
    """The part of a task that the encoder's graph depends on."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, which are float32."""

    def check_head(self, model: ov.Model, nodes: NamedNodes) -> None:
        """Check the head's nodes, and the outputs' types and shapes, in a bundle's graph without token selection.

        Raises:
            BundleFormatError: A node is missing, or a type or shape is wrong.
        """

    def protected(self, nodes: NamedNodes) -> ov.Output:
        """Float32 [B, L]: 1 for tokens that learnt significance never drops while keep ratios leave room, else 0.

        Args:
            nodes: The graph's nodes; among them its inputs `input_ids`, `attention_mask` and `token_type_ids`.
        """

    def put_head(self, nodes: NamedNodes, rows: Rows) -> None:
        """Make the head compute its outputs from `rows`, because the last layer's output lacks the dropped tokens.

        A per-token head takes the states of dropped tokens from `rows`; a head on [CLS] reads `rows.first_token()`.

        Raises:
            BundleFormatError: The head is not as the exporter writes it.
        """
