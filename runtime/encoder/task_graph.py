"""The part of a task that the encoder's graph needs: which tokens are protected, and how the head is connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import openvino as ov

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


class TaskGraph(Protocol):
    """The part of a task that the encoder's graph depends on."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, which are float32."""

    @property
    def first_token_only(self) -> bool:
        """Whether the head reads the last state of the first token, [CLS], and nothing else.

        No layer drops this token then, and the last layer computes no other one.
        """

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

        A per-token head takes the states of dropped tokens from `rows`. A head on [CLS] stays as it is: [CLS] is the
        first row of the last layer's output.

        Raises:
            BundleFormatError: The head is not as the exporter writes it.
        """
