"""The steps of a training, run by transformers' Trainer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate  # type: ignore[import-untyped]  # noqa: F401 - without it the Trainer fails late
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from dynamic_tinybert.modeling.precision import half_precision
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.runtime.common.errors import TrainingError
from dynamic_tinybert.runtime.common.publish import writing

from .batches import TrainingRow, collate
from .interruption import Interruption, SaveAndStop
from .objectives.base import Objective, TrainingStep
from .saved_state import checkpoint_of_step, last_checkpoint, load_state, save_state

_WEIGHT_DECAY = 0.01
_WARM_UP = 0.06  # fraction of the steps in which the learning rate rises


@dataclass(frozen=True)
class LoopOptions:
    """Options of the optimisation.

    Attributes:
        learning_rate: Peak learning rate of AdamW: it rises over the first 6 % of the steps, then falls to 0.
        save_steps: Steps between checkpoints; only the last checkpoint is kept.
        seed: Seed of dropout and of the random choices of objectives.
        head_learning_rate: Peak learning rate of the task's head; None for that of the rest of the model.
    """

    learning_rate: float
    save_steps: int
    seed: int
    head_learning_rate: float | None = None


def run_steps(
    objective: Objective,
    rows: Sequence[TrainingRow],
    plan: Sequence[Sequence[int]],
    checkpoints: Path,
    options: LoopOptions,
    record: Callable[[int, Mapping[str, float]], None],
    write_tokenizer: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Train an objective, starting from the last checkpoint in `checkpoints` if there is one.

    GPUs use mixed precision (bfloat16, or float16 on a GPU that lacks it), and so do CPUs with bfloat16 products; on a
    CPU all its cores are used. The first SIGINT or SIGTERM saves a checkpoint and ends the process, a second signal
    ends it at once.

    Args:
        objective: The objective to minimise; afterwards it is on the device that was trained on.
        rows: The rows to train on.
        plan: For each step, the indices of its rows.
        checkpoints: Folder of the checkpoints; each of them is a folder that transformers can load.
        options: Options of the optimisation.
        record: Called with the number of each step, from 1, and the parts of its loss by name.
        write_tokenizer: Writes the other files of a checkpoint, such as the tokenizer's, into a folder.

    Raises:
        TrainingError: The loss or a weight is not finite. The last checkpoint is from before that.
        StorageError: A checkpoint could not be written; the one before is kept.
        KeyboardInterrupt: The training was interrupted by SIGINT.
        SystemExit: The training was terminated by SIGTERM.
    """
    on_gpu, half = torch.cuda.is_available(), half_precision()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=1,  # the plan covers all epochs
        learning_rate=options.learning_rate,
        warmup_steps=math.ceil(_WARM_UP * len(plan)),
        save_steps=options.save_steps,
        save_total_limit=1,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=options.seed,
        use_cpu=not on_gpu,
        bf16=half == torch.bfloat16,
        fp16=half == torch.float16,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # batches are planned for a single device
    with Interruption() as interruption:
        trainer = _Trainer(
            objective,
            rows,
            plan,
            checkpoints,
            arguments,
            options.head_learning_rate,
            record,
            write_tokenizer,
            interruption,
        )
        last = last_checkpoint(checkpoints)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        interruption.end()


class _Trainer(Trainer):
    """Trainer with planned batches, losses of several parts, and checkpoints that appear complete or not at all."""

    def __init__(
        self,
        objective: Objective,
        rows: Sequence[TrainingRow],
        plan: Sequence[Sequence[int]],
        checkpoints: Path,
        arguments: TrainingArguments,
        head_learning_rate: float | None,
        record: Callable[[int, Mapping[str, float]], None],
        write_tokenizer: Callable[[Path], None],
        interruption: Interruption,
    ) -> None:
        super().__init__(objective, arguments, callbacks=[SaveAndStop(interruption)])
        self.remove_callback(PrinterCallback)
        self._checkpoints = checkpoints
        self._rows = rows
        self._plan = plan
        self._record = record
        self._head_learning_rate = head_learning_rate
        self._write_tokenizer = write_tokenizer

    def get_train_dataloader(self) -> DataLoader[TrainingRow]:
        return DataLoader(self._rows, batch_sampler=self._plan, collate_fn=collate)  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        own_rates = dict(self._objective.learning_rates())
        if self._head_learning_rate is not None:
            heads = task_of(self._objective.model).head_linears
            own_rates |= {f"model.{linear}.": self._head_learning_rate for linear in heads}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self._objective.named_parameters():
            if not parameter.requires_grad:
                continue
            rate = next((r for prefix, r in own_rates.items() if name.startswith(prefix)), self.args.learning_rate)
            decay = _WEIGHT_DECAY if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()], fused=True
        )
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: object, **__: object) -> Tensor:
        step = TrainingStep(self.state.global_step, len(self._plan), self.args.seed)
        losses: dict[str, Tensor] = model(inputs, step)
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(sum(values.values())):
            raise self._diverged(f"the loss is {values}")
        self._record(step.index + 1, values)
        return torch.stack(list(losses.values())).sum()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401 - transformers' signature
        broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
        if broken:
            raise self._diverged(f"{broken[0]} holds values that are not finite")
        folder = checkpoint_of_step(self._checkpoints, self.state.global_step)
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self._checkpoints)
        folder.mkdir(parents=True, exist_ok=True)
        self._write_tokenizer(folder)
        save_state(self._objective, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_state(self._objective, Path(resume_from_checkpoint))

    @property
    def _objective(self) -> Objective:
        objective = self.model
        assert isinstance(objective, Objective)
        return objective

    def _diverged(self, what: str) -> TrainingError:
        last = last_checkpoint(self._checkpoints)
        kept = "there is no checkpoint yet" if last is None else f"{last} is the last good checkpoint"
        return TrainingError(
            f"the training diverged at step {self.state.global_step + 1}: {what}; {kept}; train with a learning rate "
            f"below {self.args.learning_rate:g}, from there or from the start"
        )
