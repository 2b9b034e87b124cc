"""What export, calibration and training need of a task in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

import openvino as ov
from torch import Tensor
from transformers import BertModel, BertPreTrainedModel

Linear = Callable[[str, ov.Output], ov.Node]
"""Writes the Linear module of a given name as graph nodes: from its input [..., in] to its node [..., out]."""


class ModelTask(Protocol):
    """One task: its head after the encoder, and which tokens it needs.

    Its counterpart without PyTorch, of the same name, is in `runtime/tasks/`.
    """

    @property
    def name(self) -> str:
        """Name of the task, as in the manifest."""

    @property
    def architecture(self) -> type[BertPreTrainedModel]:
        """The model class, whose name config.json gives, with the encoder as its attribute `bert`."""

    @property
    def head_linears(self) -> tuple[str, ...]:
        """Names of the head's Linear modules, in the order in which they run. They are never quantised."""

    @property
    def no_head(self) -> str:
        """What a checkpoint without this head lacks and what to do, to follow "has no" in an error message."""

    @property
    def per_token(self) -> bool:
        """Whether the outputs are [B, L], one number for each token; at padding they are undefined."""

    @property
    def first_token_only(self) -> bool:
        """Whether the head reads the last state of the first token, [CLS], and nothing else; no layer drops it then."""

    @property
    def context_rule(self) -> bool:
        """Whether the words of the first text are dropped after the attention of the last layer but one."""

    def fits(self, model: BertPreTrainedModel, head_weight: Tensor) -> bool:
        """Whether a model and the stored weight of its last Linear have as many outputs as the task needs."""

    def unsupported(self, config: Mapping[str, object]) -> str | None:
        """What the task does not support in config.json, to follow the checkpoint's name in a message, or None."""

    def protected(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Tokens that no layer drops by learnt significance, bool [B, L]; padding is not among them.

        Args:
            inputs: `input_ids`, `attention_mask` and `token_type_ids`, int64 [B, L].
        """

    def outputs(self, model: BertPreTrainedModel, states: Tensor) -> dict[str, Tensor]:
        """The head's outputs by name.

        Args:
            model: The model, for the weights of its head.
            states: States of all tokens at their original positions, [B, L, H]; a dropped token has the state with
                which it entered the layer that dropped it.
        """

    def head_nodes(self, linear: Linear, states: ov.Output) -> Iterator[tuple[str, ov.Node]]:
        """Write the head as graph nodes, and yield its outputs with their names.

        Args:
            linear: Writes a Linear module.
            states: States of all tokens, float32 [B, L, H].
        """

    def significance_targets(self, outputs: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """For each token the probability that it should be kept, 0 to 1, [B, L]; scorers learn these targets.

        Args:
            outputs: The head's outputs by name when nothing is dropped; in calibration also the tensors of
                `target_nodes`.
            context: 1 for the tokens that may be dropped, neither protected nor padding; else 0, [B, L].
        """

    def importance_scalar(
        self, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """The scalar whose gradient measures the importance of tokens; see `token_importance`.

        Args:
            outputs: The head's outputs by name when nothing is dropped.
            teacher: The outputs of the teacher, which may be the same model; they receive no gradient.
            inputs: The model's inputs.
        """

    def output_scale(self, model: BertPreTrainedModel, output: Tensor) -> float:
        """A typical difference between values of an output for different inputs, above 0.

        Args:
            model: The model, for the weights of its head.
            output: The output for some inputs, which may happen to be alike; padding included.
        """

    def target_nodes(self, num_layers: int) -> tuple[str, ...]:
        """Names of nodes of the graph that the targets need besides the head's outputs (docs/bundle-format.md)."""


def encoder_of(model: BertPreTrainedModel) -> BertModel:
    """The encoder of a task's model."""
    return cast(BertModel, model.bert)
