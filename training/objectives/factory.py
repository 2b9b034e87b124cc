"""Make the objective of a training from its options."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.training.options import TrainingOptions

from .base import Objective
from .distillation import LayerDistillation, PredictionDistillation
from .fine_tuning import FineTuning
from .front import FrontSampling
from .length_drop import LengthDrop
from .relaxed import RelaxedSelection
from .scorer_objective import WARM_UP
from .scorers_only import ScorersOnly

_WITH_SCORERS = ("scorers", "front", "straight-through", "soft-masks")
_SOFT_UNTIL = 0.7  # fraction of a training with soft masks after which gates are 0 or 1


def make_objective(
    options: TrainingOptions,
    model: BertPreTrainedModel,
    scorers: Mapping[int, Scorer],
    teacher: BertPreTrainedModel | None,
) -> Objective:
    """Make the objective that `options` names.

    Args:
        options: The options.
        model: The model to train.
        scorers: Scorers to start from, by layer; may be empty.
        teacher: The teacher of a distillation, else None.

    Raises:
        InvalidInputError: A distillation has no teacher, or another objective has one; or the objective trains scorers
            with the model, and the model's task does not say from its outputs alone what they should learn.
    """
    if (teacher is not None) != options.objective.startswith("distill"):
        wrong = "needs a teacher: name its checkpoint" if teacher is None else "has no teacher: leave it out"
        raise InvalidInputError(f"the objective {options.objective} {wrong}")
    task = task_of(model)
    if options.objective in _WITH_SCORERS and task.target_nodes(model.config.num_hidden_layers):
        raise InvalidInputError(
            f"the objective {options.objective} is not for {task.name}; train with another one, and let "
            "`dynamic-tinybert calibrate` fit scorers to the exported model"
        )
    match options.objective:
        case "distill-layers" if teacher is not None:
            return LayerDistillation(model, teacher)
        case "distill-answers" if teacher is not None:
            return PredictionDistillation(model, teacher)
        case "length-drop":
            return LengthDrop(model, layer_dropout=options.layer_dropout)
        case "scorers":
            return ScorersOnly(model, scorers)
        case "front":
            return FrontSampling(model, scorers, scorer_weight=options.scorer_weight)
        case "straight-through" | "soft-masks" as name:
            return RelaxedSelection(
                model,
                scorers,
                macs_fewer=options.macs_fewer,
                hard_from=WARM_UP if name == "straight-through" else _SOFT_UNTIL,
                scorer_weight=options.scorer_weight,
            )
        case _:
            return FineTuning(model)
