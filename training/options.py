"""The options of a training and their defaults for each objective."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError


@dataclass(frozen=True)
class Recipe:
    """Default hyper-parameters of an objective, mostly those of its paper (docs/training.md)."""

    learning_rate: float
    epochs: float
    batch_size: int


RECIPES = MappingProxyType(
    {
        "fine-tune": Recipe(learning_rate=3e-5, epochs=2, batch_size=8),
        "distill-layers": Recipe(learning_rate=5e-5, epochs=20, batch_size=16),
        "distill-answers": Recipe(learning_rate=3e-5, epochs=10, batch_size=16),
        "length-drop": Recipe(learning_rate=2e-5, epochs=10, batch_size=16),
        "scorers": Recipe(learning_rate=4e-3, epochs=2, batch_size=16),
        "front": Recipe(learning_rate=5e-5, epochs=5, batch_size=16),
        "straight-through": Recipe(learning_rate=5e-5, epochs=5, batch_size=16),
        "soft-masks": Recipe(learning_rate=5e-5, epochs=5, batch_size=16),
    }
)
"""The default hyper-parameters by name of the objective."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training.

    Attributes:
        objective: Name of the objective, a key of `RECIPES`.
        num_layers: Train a student with only this many of the model's layers, evenly spaced; None for all layers.
        epochs: Number of times that each window is seen; None for the objective's default.
        max_steps: Number of steps, instead of `epochs`.
        batch_size: Number of windows per step; None for the objective's default.
        learning_rate: Peak learning rate; None for the objective's default.
        head_learning_rate: Peak learning rate of the task's head; None for that of the rest of the model.
        dropout: Dropout probability of states and attention; None for the checkpoint's own.
        max_seq_len: Largest number of tokens in a window; None for 384, or the model's longest input if that is less.
        layer_dropout: For `length-drop`: probability with which each layer is left out of a random configuration.
        scorer_weight: Weight of the scorers' loss. It does not change how scorers learn, but how much the model learns
            from their loss.
        macs_fewer: For `straight-through` and `soft-masks`: target for the MACs of `full` divided by those
            with selection.
        save_steps: Steps between checkpoints.
        seed: Seed of all random choices.

    Raises:
        InvalidInputError: An option is outside its range.
    """

    objective: str = "fine-tune"
    num_layers: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    dropout: float | None = None
    max_seq_len: int | None = None
    layer_dropout: float = 0.2
    scorer_weight: float = 1.0
    macs_fewer: float = 2.6
    save_steps: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in RECIPES:
            raise InvalidInputError(f"objective is {self.objective!r}; give one of {', '.join(RECIPES)}")
        for name in ("max_steps", "batch_size", "save_steps"):
            if (value := getattr(self, name)) is not None:
                require_int(name, value, 1)
        require_int("seed", self.seed, 0)
        for name in ("epochs", "learning_rate", "head_learning_rate", "scorer_weight"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise InvalidInputError(f"{name} is {value}; give a positive number")
        for name in ("dropout", "layer_dropout"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise InvalidInputError(f"{name} is {value}; give a number of at least 0 and below 1")
        if not self.macs_fewer > 1:
            raise InvalidInputError(f"macs_fewer is {self.macs_fewer}; give a number above 1")

    @property
    def recipe(self) -> Recipe:
        """The hyper-parameters: those that were given, and the objective's defaults for the others."""
        default = RECIPES[self.objective]
        return Recipe(
            default.learning_rate if self.learning_rate is None else self.learning_rate,
            default.epochs if self.epochs is None else self.epochs,
            default.batch_size if self.batch_size is None else self.batch_size,
        )
