"""The base of objectives that train scorers with the model: their layers, their initial weights and their loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer, with_context_rule
from dynamic_tinybert.modeling.scorer_targets import ScorerTarget, TrainedScorer, scorer_loss
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import Objective, Unregistered

WARM_UP = 0.1
"""Fraction of the training during which new scorers learn on the unchanged model, and nothing is dropped."""

_LEARNING_RATE = 1e-3  # of new scorers: they are small
_LEARNING_RATE_FITTED = 3e-4  # of scorers that were fitted before


class ScorerObjective(Objective):
    """An objective that trains scorers with the model.

    Args:
        model: The model.
        scorers: Scorers to start from, by layer; without any, new ones for all layers but the last two.
        scorer_weight: Weight of the scorers' loss. With AdamW it does not change how scorers learn, but how much the
            model learns from their loss.
    """

    def __init__(
        self, model: BertPreTrainedModel, scorers: Mapping[int, Scorer] | None = None, scorer_weight: float = 1.0
    ) -> None:
        super().__init__(model)
        self.scorer_weight = scorer_weight
        self._scorer_learning_rate = _LEARNING_RATE_FITTED if scorers else _LEARNING_RATE
        width = model.config.hidden_size
        initial = scorers or {i: Scorer(width) for i in range(max(1, model.config.num_hidden_layers - 2))}
        self.scorer_of_layer = nn.ModuleDict({str(layer): TrainedScorer(scorer) for layer, scorer in initial.items()})
        deployed = with_context_rule(
            self.scorers(), model.config.num_hidden_layers, has_rule=task_of(model).context_rule
        )
        self._reference = Unregistered(ReferenceModel(model, "learnt", deployed))  # shares the weights above

    @property
    def reference(self) -> ReferenceModel:
        """The model as it will be deployed, with the scorers and the context rule that calibration adds."""
        return self._reference.module

    def scorers(self) -> Mapping[int, Scorer]:
        """The scorers by layer."""
        return {int(layer): cast(Scorer, scorer) for layer, scorer in self.scorer_of_layer.items()}

    def deployed_scorers(self) -> Mapping[int, Scorer | ContextRule]:
        """The scorers and the context rule that calibration adds, by layer."""
        return {int(layer): cast(Scorer | ContextRule, scorer) for layer, scorer in self.reference.scorers.items()}

    def learning_rates(self) -> Mapping[str, float]:
        """The learning rate of the scorers, by the prefix of their parameters."""
        return {"scorer_of_layer.": self._scorer_learning_rate}

    def detach_scorers(self, detached: bool) -> None:
        """Set whether the scorers' loss is detached from the model, which then learns nothing from it."""
        for scorer in self.scorer_of_layer.values():
            cast(TrainedScorer, scorer).detached = detached

    def droppable(self, batch: TokenBatch) -> Tensor:
        """1 for tokens that scorers decide about, `[B, L]` int64; 0 for protected tokens and padding."""
        return batch["attention_mask"] * ~self.reference.task.protected(inputs_of(batch))

    def scorer_loss(self, output: ReferenceOutput, targets: Mapping[int, ScorerTarget], droppable: Tensor) -> Tensor:
        """The shared `scorer_loss`, times the weight of the scorers' loss."""
        return self.scorer_weight * scorer_loss(output, targets, droppable)
