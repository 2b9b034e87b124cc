"""What the model believed before a training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynamic_tinybert.modeling import precision
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.tasks.question_answering.windows import WindowTokenizer
from dynamic_tinybert.training import teacher_logits as taught
from dynamic_tinybert.training.batches import collate, inputs_of
from dynamic_tinybert.training.data import AnsweredWindow, answered_windows, read_answered

from support.tiny import tiny_bert


@pytest.fixture
def windows(tiny_checkpoint: Path, questions: Path) -> list[AnsweredWindow]:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    return answered_windows(tokenize, read_answered(questions).examples, max_length=128)


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_each_window_has_the_models_own_logits(
    windows: list[AnsweredWindow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: torch.dtype | None
) -> None:
    monkeypatch.setattr(taught, "half_precision", lambda: half)
    model = tiny_bert()
    lines: list[str] = []
    found = taught.with_taught(windows, model, tmp_path / taught.TAUGHT, lines.append)
    assert lines == [f"Asking the model what it believes of {len(windows)} windows"]
    rounded, tolerance = [], 1e-3 if half is None else 0.05
    for before, window in zip(windows, found, strict=True):
        assert window.taught is not None
        assert window.taught.dtype == np.float16
        assert window.ids is before.ids
        with torch.inference_mode():
            own = model(**inputs_of(collate([before])))
        expected = torch.cat([own.start_logits, own.end_logits])
        actual = torch.from_numpy(window.taught).float()
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
        rounded.append(float((actual - expected).abs().max()))
    assert (max(rounded) > 2e-3) == (half is not None)


def test_a_resumed_training_reads_what_was_believed_first(windows: list[AnsweredWindow], tmp_path: Path) -> None:
    file, lines = tmp_path / taught.TAUGHT, list[str]()
    first = taught.with_taught(windows, tiny_bert(), file, lines.append)
    second = taught.with_taught(windows, tiny_bert(seed=1), file, lines.append)
    assert len(lines) == 1
    assert [path.name for path in tmp_path.iterdir()] == [taught.TAUGHT]
    for one, other in zip(first, second, strict=True):
        assert one.taught is not None
        assert other.taught is not None
        assert np.array_equal(one.taught, other.taught)


def test_a_batch_holds_what_was_taught_of_its_windows(windows: list[AnsweredWindow], tmp_path: Path) -> None:
    assert "taught_logits" not in collate(windows)
    found = taught.with_taught(windows, tiny_bert(), tmp_path / taught.TAUGHT, lambda line: None)
    logits = collate(found)["taught_logits"]
    for row, window in zip(logits, found, strict=True):
        assert window.taught is not None
        assert torch.equal(row[: len(window)].mT, torch.from_numpy(window.taught).float())
        assert (row[len(window) :] == -torch.inf).all()


def test_half_precision_is_what_the_machine_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for multiplies, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda multiplies=multiplies: multiplies)
        assert precision.half_precision() is expected
