"""Classification of a text or a pair of texts: the last state of [CLS], a pooler and a classifier give the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import openvino as ov
import torch
from openvino import opset13 as ops
from torch import Tensor
from transformers import BertForSequenceClassification, BertPreTrainedModel

from .task import Linear, ModelTask, encoder_of

_POOLER, _CLASSIFIER = "bert.pooler.dense", "classifier"


class SequenceClassification:
    """The head of a `BertForSequenceClassification`; see `ModelTask`."""

    name = "sequence_classification"
    architecture = BertForSequenceClassification
    head_linears = (_POOLER, _CLASSIFIER)
    no_head = (
        f"classification head among its weights ({_POOLER}.weight, {_CLASSIFIER}.weight and their biases) with as many "
        "outputs as config.json has labels (num_labels or id2label)"
    )
    per_token = False
    first_token_only = True
    context_rule = False  # [CLS] still reads the first text in the last layer

    def fits(self, model: BertPreTrainedModel, head_weight: Tensor) -> bool:
        """Whether the head has an output for each label."""
        return bool(head_weight.shape[0] == model.config.num_labels)

    def unsupported(self, config: Mapping[str, object]) -> str | None:
        """Nothing is refused: labels may be one number, exclusive classes, or classes that go together."""
        return None

    def protected(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[CLS] and the last [SEP]; of a pair also the first text and its [SEP]."""
        real = inputs["attention_mask"].bool()
        second = real & (inputs["token_type_ids"] != 0)
        number = real.cumsum(1)
        is_end = (number == 1) | (number == real.sum(1, keepdim=True))
        return real & (is_end | (~second & second.any(1, keepdim=True)))

    def outputs(self, model: BertPreTrainedModel, states: Tensor) -> dict[str, Tensor]:
        """The logits, [B, labels]."""
        pooler = encoder_of(model).pooler
        assert pooler is not None  # a BertForSequenceClassification has one
        return {"logits": cast(BertForSequenceClassification, model).classifier(pooler(states))}

    def head_nodes(self, linear: Linear, states: ov.Output) -> Iterator[tuple[str, ov.Node]]:
        """Write the pooler and the classifier for the first row of the states."""
        first = ops.gather(states, [0], 1).output(0)
        pooled = ops.tanh(linear(_POOLER, first))
        yield "logits", ops.squeeze(linear(_CLASSIFIER, pooled.output(0)), [1])

    def significance_targets(self, outputs: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """A token is worth keeping if [CLS] attends to it in the last layer more than to a token on average."""
        by_name = {name.rsplit(".", 1)[-1]: tensor for name, tensor in outputs.items()}
        query, key = by_name["query"], by_name["key"]
        scores = (query[:, :1] @ key.mT)[:, 0] / query.shape[2] ** 0.5
        attention: Tensor = scores.masked_fill(context == 0, -torch.inf).softmax(1)
        return (attention * context.sum(1, keepdim=True) / 2).clamp(0, 1)

    def importance_scalar(
        self, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Sum of all logits, each weighted by how far its probability, by the teacher, is from a uniform one.

        The only logit of a model with one output counts in full.
        """
        logits = outputs["logits"]
        if logits.shape[1] == 1:
            return logits.sum()
        probabilities = teacher["logits"].detach().float().softmax(1)
        return ((probabilities - 1 / logits.shape[1]) * logits).sum()

    def output_scale(self, model: BertPreTrainedModel, output: Tensor) -> float:
        """The standard deviation over inputs, but at least that for random signs of what the classifier reads.

        The outputs of a batch may be alike: of documents that answer nothing, or of a single text.
        """
        weight = cast(BertForSequenceClassification, model).classifier.weight.detach().float()
        return max(float(output.std(0, correction=0).mean()), float(weight.norm(dim=1).mean()))

    def target_nodes(self, num_layers: int) -> tuple[str, ...]:
        """The query of [CLS] and the keys of the last layer."""
        return (f"layer.{num_layers - 1}.query", f"layer.{num_layers - 1}.key")


TASK: ModelTask = SequenceClassification()
