"""The objectives by name."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.checkpoint import Checkpoint
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime.common.errors import CheckpointError, InvalidInputError
from dynamic_tinybert.training.options import TrainingOptions

from .base import FineTuning, Objective
from .distillation import AnswerDistillation, LayerDistillation
from .front import FrontSampling
from .length_drop import LengthDrop
from .relaxed import RelaxedSelection
from .scorers_only import ScorersAlone
from .selective import SCORERS_FIRST

_HARDENED_AT = 0.7  # of a training with soft masks


def make_objective(
    options: TrainingOptions,
    model: BertForQuestionAnswering,
    scorers: Mapping[int, Scorer],
    teacher: BertForQuestionAnswering | None,
) -> Objective:
    """The objective that the options name.

    Args:
        options: How to train.
        model: What to train.
        scorers: Scorers to begin with, by layer, maybe none.
        teacher: Of a distillation.

    Raises:
        InvalidInputError: A teacher is missing, or of no use.
    """
    if (teacher is not None) != options.objective.startswith("distill"):
        wrong = "needs a teacher: name its checkpoint" if teacher is None else "has no teacher: leave it out"
        raise InvalidInputError(f"the objective {options.objective} {wrong}")
    match options.objective:
        case "distill-layers" if teacher is not None:
            return LayerDistillation(model, teacher)
        case "distill-answers" if teacher is not None:
            return AnswerDistillation(model, teacher)
        case "length-drop":
            return LengthDrop(model, layer_dropout=options.layer_dropout)
        case "scorers":
            return ScorersAlone(model, scorers)
        case "front":
            return FrontSampling(model, scorers, scorer_weight=options.scorer_weight)
        case "straight-through" | "soft-masks" as name:
            return RelaxedSelection(
                model,
                scorers,
                macs_fewer=options.macs_fewer,
                hard_from=SCORERS_FIRST if name == "straight-through" else _HARDENED_AT,
                scorer_weight=options.scorer_weight,
            )
        case _:
            return FineTuning(model)


def check_vocabularies(student: Checkpoint, teacher: Checkpoint) -> None:
    """Raise CheckpointError unless both checkpoints read the same token ids as the same words."""
    own, taught = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if own != taught:
        token = min(token for token, _ in own.items() ^ taught.items())
        raise CheckpointError(
            f"{teacher.source} cannot teach {student.source}: their vocabularies differ, the token {token!r} has id "
            f"{taught.get(token)} there and {own.get(token)} here; distil between checkpoints with one vocabulary"
        )
