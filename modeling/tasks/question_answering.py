"""Extractive question answering: each token has two logits, one for the start of the answer and one for its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import openvino as ov
import torch
from openvino import opset13 as ops
from torch import Tensor
from torch.nn import functional
from transformers import BertForQuestionAnswering, BertPreTrainedModel

from .task import Linear, ModelTask

OUTPUTS = ("start_logits", "end_logits")

WIDENED_BY = 2
"""Number of tokens on each side of a likely start or end that should also be kept."""

_HEAD = "qa_outputs"


class QuestionAnswering:
    """The head of a `BertForQuestionAnswering`; see `ModelTask`."""

    name = "question_answering"
    architecture = BertForQuestionAnswering
    head_linears = (_HEAD,)
    no_head = (
        f"question-answering head of two outputs among its weights ({_HEAD}.weight, {_HEAD}.bias); fine-tune it for "
        "question answering first"
    )
    per_token = True
    first_token_only = False
    context_rule = True

    def fits(self, model: BertPreTrainedModel, head_weight: Tensor) -> bool:
        """Whether the head has two outputs."""
        return bool(model.config.num_labels == 2 and head_weight.shape[0] == 2)

    def unsupported(self, config: Mapping[str, object]) -> str | None:
        """Refuse models without token types."""
        types = config.get("type_vocab_size", 2)
        if types not in (0, 1):
            return None
        return f"has type_vocab_size {types}, and 2 are needed to tell questions (type 0) from contexts (type 1)"

    def protected(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[CLS], the question and its [SEP]."""
        return inputs["attention_mask"].bool() & (inputs["token_type_ids"] == 0)

    def outputs(self, model: BertPreTrainedModel, states: Tensor) -> dict[str, Tensor]:
        """Start and end logits, [B, L] each."""
        logits = cast(BertForQuestionAnswering, model).qa_outputs(states)
        return dict(zip(OUTPUTS, logits.unbind(-1), strict=True))

    def head_nodes(self, linear: Linear, states: ov.Output) -> Iterator[tuple[str, ov.Node]]:
        """Write the node `logits`, [B, L, 2]; its two columns are the outputs."""
        logits = linear(_HEAD, states)
        logits.set_friendly_name("logits")
        for k, name in enumerate(OUTPUTS):
            yield name, ops.gather(logits, k, 2)

    def significance_targets(self, outputs: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """The probability that the model's answer starts or ends near a token."""
        return near_answer(outputs["start_logits"], outputs["end_logits"], context)

    def importance_scalar(
        self, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Sum of all logits, each weighted by how far its probability, by the teacher, is from a uniform one."""
        real = inputs["attention_mask"].float()
        uniform = real / real.sum(1, keepdim=True)
        padding = inputs["attention_mask"] == 0
        parts = [
            (teacher[name].detach().float().masked_fill(padding, -torch.inf).softmax(1) - uniform) * outputs[name]
            for name in OUTPUTS
        ]
        return torch.stack(parts).sum()

    def output_scale(self, model: BertPreTrainedModel, output: Tensor) -> float:
        """The standard deviation: the logits of the tokens of any text differ."""
        return float(output.std(correction=0)) + 1e-3

    def target_nodes(self, num_layers: int) -> tuple[str, ...]:
        """None: the logits are enough."""
        return ()


def near_answer(start_logits: Tensor, end_logits: Tensor, context: Tensor, widened_by: int = WIDENED_BY) -> Tensor:
    """For each token [B, L] the probability, 0 to 1, that the model's answer starts or ends near it.

    Args:
        start_logits: Start logits of the model, [B, L].
        end_logits: End logits of the model, [B, L].
        context: 0 for tokens that cannot be part of an answer, else 1, [B, L].
        widened_by: Largest distance, in tokens, that counts as near.
    """
    start, end = (logits.masked_fill(context == 0, -torch.inf).softmax(1) for logits in (start_logits, end_logits))
    near = start.new_ones(1, 1, 2 * widened_by + 1)
    return functional.conv1d((start + end)[:, None], near, padding=widened_by)[:, 0].clamp(0, 1)


TASK: ModelTask = QuestionAnswering()
