"""Steps that are interrupted, killed, or go wrong."""

import errno
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.common.errors import StorageError, TrainingError
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training.batches import TrainingRow, plan_batches
from dynamic_tinybert.training.loop import LoopOptions, run_steps
from dynamic_tinybert.training.objectives.base import Objective
from dynamic_tinybert.training.objectives.fine_tuning import FineTuning
from dynamic_tinybert.training.saved_state import last_checkpoint
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.tiny import tiny_tokenizer

STEPS = 9
Losses = dict[int, Mapping[str, float]]


@pytest.fixture
def windows(tiny_checkpoint: Path, questions: Path) -> list[TrainingRow]:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    return answered_rows(Windowing(tokenize, 128), read_answered(questions).examples)


def steps(
    objective: Objective,
    windows: list[TrainingRow],
    folder: Path,
    *,
    learning_rate: float = 1e-3,
    at_step: Callable[[int], None] = lambda step: None,
) -> Losses:
    """Losses by step."""
    losses: Losses = {}

    def record(step: int, values: Mapping[str, float]) -> None:
        losses[step] = values
        at_step(step)

    plan = plan_batches([len(w) for w in windows], 8, epochs=1, max_steps=STEPS, seed=0)
    options = LoopOptions(learning_rate, save_steps=4, seed=0)
    run_steps(objective, windows, plan, folder, options, record, write_tokenizer)
    return losses


def write_tokenizer(folder: Path) -> None:
    tiny_tokenizer().save(str(folder / "tokenizer.json"))


def fine_tuning(folder: Path) -> FineTuning:
    return FineTuning(load_checkpoint(folder).model)


def parameters(objective: Objective) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def killed(step: int, last: int) -> None:
    if step == last:
        raise MemoryError("killed")


@pytest.mark.parametrize("last", [4, 6, 9])
def test_a_killed_training_goes_on_with_the_same_losses(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path, last: int
) -> None:
    undisturbed = fine_tuning(tiny_checkpoint)
    expected = steps(undisturbed, windows, tmp_path / "undisturbed")
    assert len(expected) == STEPS

    with pytest.raises(MemoryError):
        steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "killed", at_step=lambda step: killed(step, last))
    resumed = fine_tuning(tiny_checkpoint)
    losses = steps(resumed, windows, tmp_path / "killed")
    first = (last - 1) // 4 * 4 + 1  # after the last checkpoint
    assert losses == {step: expected[step] for step in range(first, STEPS + 1)}
    after = parameters(resumed)
    for name, tensor in parameters(undisturbed).items():
        assert torch.equal(tensor, after[name]), name


def test_dropout_is_on(tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path) -> None:
    """Else the test above would not see a lost state of random numbers."""
    objective = fine_tuning(tiny_checkpoint)
    assert objective.model.config.hidden_dropout_prob > 0
    assert steps(objective, windows, tmp_path)[1] != steps_without_dropout(tiny_checkpoint, windows, tmp_path / "off")


def steps_without_dropout(checkpoint: Path, windows: list[TrainingRow], folder: Path) -> Mapping[str, float]:
    objective = fine_tuning(checkpoint)
    for module in objective.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return steps(objective, windows, folder)[1]


def test_mixed_precision_goes_on_with_the_same_losses(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda: False)
    exact = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "exact")
    monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda: True)
    expected = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "undisturbed")
    assert expected[1] != exact[1]
    assert expected[1]["answers"] == pytest.approx(exact[1]["answers"], rel=0.05)
    with pytest.raises(MemoryError):
        steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "killed", at_step=lambda step: killed(step, 6))
    losses = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "killed")
    assert losses == {step: expected[step] for step in range(5, STEPS + 1)}


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_the_step_that_it_came_in(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path, signum: int, error: type[BaseException]
) -> None:
    expected = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "undisturbed")
    before = signal.getsignal(signum)
    with pytest.raises(error):
        steps(
            fine_tuning(tiny_checkpoint),
            windows,
            tmp_path / "stopped",
            at_step=lambda step: signal.raise_signal(signum) if step == 6 else None,
        )
    assert signal.getsignal(signum) == before
    losses = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "stopped")
    assert losses == {step: expected[step] for step in range(7, STEPS + 1)}


def test_a_diverging_training_stops_and_keeps_its_last_good_checkpoint(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path
) -> None:
    objective = fine_tuning(tiny_checkpoint)

    def spoil(step: int) -> None:
        if step == 6:
            objective.model.get_parameter("qa_outputs.weight").data[0, 0] = torch.nan

    with pytest.raises(TrainingError, match=r"diverged at step 7: the loss is .*nan.*checkpoint-4 is the last good"):
        steps(objective, windows, tmp_path, at_step=spoil)
    kept = last_checkpoint(tmp_path)
    assert kept is not None
    assert kept.name == "checkpoint-4"
    loaded = fine_tuning(kept)  # by its folder, as that of any checkpoint
    assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())


def test_weights_that_are_no_numbers_are_not_saved(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path
) -> None:
    objective = fine_tuning(tiny_checkpoint)
    # no loss tells of the last row of these weights
    unused = encoder_of(objective.model).get_parameter("embeddings.position_embeddings.weight")

    def spoil(step: int) -> None:
        if step == 6:
            unused.data[-1, 0] = torch.inf

    with pytest.raises(TrainingError, match=r"position_embeddings\.weight holds values that are not finite"):
        steps(objective, windows, tmp_path, at_step=spoil)
    kept = last_checkpoint(tmp_path)
    assert kept is not None
    assert kept.name == "checkpoint-4"


def test_a_full_disk_keeps_the_checkpoint_before(
    tiny_checkpoint: Path, windows: list[TrainingRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "undisturbed")
    saved = []

    def full_disk(tensors: dict[str, torch.Tensor], path: Path) -> None:
        saved.append(path)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(tensors, path)

    monkeypatch.setattr("dynamic_tinybert.training.saved_state.save_file", full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "full")
    assert [folder.name for folder in (tmp_path / "full").iterdir()] == ["checkpoint-4"]
    assert steps(fine_tuning(tiny_checkpoint), windows, tmp_path / "full") == {k: expected[k] for k in range(5, 10)}


def test_what_a_killed_process_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((4, {"global_step": 4}), (8, {"global_step": 8}), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state:
            (folder / "trainer_state.json").write_text(json.dumps(state))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-8"
    assert not (tmp_path / "checkpoint-12").exists()
    assert last_checkpoint(tmp_path / "none") is None
