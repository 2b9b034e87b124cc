"""Logits of the model as it was before a training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynamic_tinybert.modeling import precision
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training import teacher_logits
from dynamic_tinybert.training.batches import TrainingRow, collate, inputs_of
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.tiny import tiny_bert


@pytest.fixture
def windows(tiny_checkpoint: Path, questions: Path) -> list[TrainingRow]:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    return answered_rows(Windowing(tokenize, 128), read_answered(questions).examples)


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_each_window_has_the_models_own_logits(
    windows: list[TrainingRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: torch.dtype | None
) -> None:
    monkeypatch.setattr(teacher_logits, "half_precision", lambda: half)
    model = tiny_bert()
    lines: list[str] = []
    found = teacher_logits.with_teacher_logits(windows, model, tmp_path / teacher_logits.TEACHER_LOGITS, lines.append)
    assert lines == [f"Computing the teacher logits of {len(windows)} windows"]
    rounded, tolerance = [], 1e-3 if half is None else 0.05
    for before, window in zip(windows, found, strict=True):
        assert window.teacher_logits is not None
        assert window.teacher_logits.dtype == np.float16
        assert window.ids is before.ids
        with torch.inference_mode():
            own = model(**inputs_of(collate([before])))
        expected = torch.cat([own.start_logits, own.end_logits]).mT
        actual = torch.from_numpy(window.teacher_logits).float()
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
        rounded.append(float((actual - expected).abs().max()))
    assert (max(rounded) > 2e-3) == (half is not None)


def test_a_resumed_training_reads_the_first_logits(windows: list[TrainingRow], tmp_path: Path) -> None:
    file, lines = tmp_path / teacher_logits.TEACHER_LOGITS, list[str]()
    first = teacher_logits.with_teacher_logits(windows, tiny_bert(), file, lines.append)
    second = teacher_logits.with_teacher_logits(windows, tiny_bert(seed=1), file, lines.append)
    assert len(lines) == 1
    assert [path.name for path in tmp_path.iterdir()] == [teacher_logits.TEACHER_LOGITS]
    for one, other in zip(first, second, strict=True):
        assert one.teacher_logits is not None
        assert other.teacher_logits is not None
        assert np.array_equal(one.teacher_logits, other.teacher_logits)


def test_a_batch_holds_the_teacher_logits_of_its_windows(windows: list[TrainingRow], tmp_path: Path) -> None:
    assert "teacher_logits" not in collate(windows)
    found = teacher_logits.with_teacher_logits(
        windows, tiny_bert(), tmp_path / teacher_logits.TEACHER_LOGITS, lambda line: None
    )
    logits = collate(found)["teacher_logits"]
    for row, window in zip(logits, found, strict=True):
        assert window.teacher_logits is not None
        assert torch.equal(row[: len(window)], torch.from_numpy(window.teacher_logits).float())
        assert (row[len(window) :] == -torch.inf).all()


def test_half_precision_is_what_the_machine_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for multiplies, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda multiplies=multiplies: multiplies)
        assert precision.half_precision() is expected


def test_the_longest_windows_come_first(
    windows: list[TrainingRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growing batches, each a little larger than what those before have freed, took four times the memory."""
    monkeypatch.setattr(teacher_logits, "_BATCH_SIZE", 2)
    lengths: list[int] = []

    def record(_: torch.nn.Module, __: object, inputs: dict[str, torch.Tensor]) -> None:
        lengths.append(inputs["input_ids"].shape[1])

    model = tiny_bert()
    model.register_forward_pre_hook(record, with_kwargs=True)
    teacher_logits.with_teacher_logits(windows, model, tmp_path / teacher_logits.TEACHER_LOGITS, [].append)
    assert len(set(lengths)) > 1
    assert lengths == sorted(lengths, reverse=True)
