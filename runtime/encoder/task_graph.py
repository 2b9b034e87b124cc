"""What a task must give the encoder's graph: which tokens are protected, and where its head goes."""

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
        all_states: float32 [B, L, H], of all tokens: the input of the first layer that drops some.
        fewer: After each layer that drops tokens, in order, the last state that all those which went on have, float32
            [B, n, H], and their origins, int32 [B, n]: 1 + where each token stood in the original input; 0 for a
            filler, which stands nowhere.
    """

    all_states: ov.Output
    fewer: Sequence[tuple[ov.Output, ov.Output]]

    def first_token(self) -> ov.Output:
        """State of each sequence's first token, [CLS], from the last layer that had it, float32 [B, H].

        Where the task protects it and keep ratios leave room for all protected tokens, that is the last layer; where
        tokens are selected by the attention that they receive, any layer may have dropped it.
        """
        state = ops.gather(self.all_states, 0, 1)
        for later, origins in self.fewer:
            went_on = ops.equal(ops.gather(origins, [0], 1), np.int32(1))  # if it did, it is still the first row
            state = ops.select(went_on, ops.gather(later, 0, 1), state)
        return state.output(0)


class TaskGraph(Protocol):
    """The part of a task that the encoder's graph depends on."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, which are float32."""

    def check_head(self, model: ov.Model, nodes: NamedNodes) -> None:
        """Check the head's nodes, and types and shapes of the outputs, in a bundle's graph at full length.

        Raises:
            BundleFormatError: They are not what the task needs.
        """

    def protected(self, nodes: NamedNodes) -> ov.Output:
        """Float32 [B, L], 1 for the tokens that no layer drops by learnt significance as long as its keep ratio allows.

        Args:
            nodes: The graph's nodes; among them its inputs `input_ids`, `attention_mask` and `token_type_ids`.
        """

    def put_head(self, nodes: NamedNodes, rows: Rows) -> None:
        """Make the outputs depend on `rows`, now that the last layer's state holds fewer tokens than the input.

        A head of each token restores those that were dropped from `rows`, one of [CLS] alone reads
        `rows.first_token()`.

        Raises:
            BundleFormatError: The head is not as the exporter writes it.
        """
