"""A new head for the encoder of a checkpoint of another task, or of none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .tasks import model_task, model_tasks
from .tasks.task import ModelTask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

_OF_THE_OLD_HEAD = ("problem_type", "sentence_transformers", "sbert_ce_default_activation_function")


@dataclass(frozen=True)
class NewHead:
    """The head to make.

    Attributes:
        task: Its task.
        labels: Names of its outputs.
    """

    task: ModelTask
    labels: Sequence[str]

    @classmethod
    def of(cls, task: str, labels: Sequence[str] = ()) -> NewHead:
        """The head of a task by its name.

        Args:
            task: Name of the task.
            labels: For classes, their names; without any, sequence classification gets one output, a score.

        Raises:
            InvalidInputError: There is no such task, or the labels are no names for it.
        """
        head = model_task(task)
        if task == "question_answering":
            if labels:
                raise InvalidInputError("question answering has no labels; leave them out")
            return cls(head, ("LABEL_0", "LABEL_1"))
        if len(set(labels)) != len(labels) or len(labels) == 1 or not all(map(str.strip, labels)):
            raise InvalidInputError(
                f"labels are {list(labels)}; give at least two different names, or none for a score"
            )
        return cls(head, tuple(labels) or ("LABEL_0",))

    def configure(self, config: PretrainedConfig) -> None:
        """Give a model's configuration the labels of this head, and remove what belonged to another."""
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {name: i for i, name in config.id2label.items()}
        for name in _OF_THE_OLD_HEAD:
            if getattr(config, name, None) is not None:
                setattr(config, name, None)

    def without_its_weights(self, names: Sequence[str]) -> list[str]:
        """The names of weights that do not belong to this head."""
        return [name for name in names if not name.startswith(tuple(f"{own}." for own in self.task.head_linears))]

    def encoder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a checkpoint without those of the head of any task; a pooler is not one."""
        heads = tuple(f"{task.head_linears[-1]}." for task in model_tasks())
        return {name: tensor for name, tensor in weights.items() if not name.startswith(heads)}
