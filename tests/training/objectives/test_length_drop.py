from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training.batches import collate, inputs_of
from dynamic_tinybert.training.objectives.base import TrainingStep
from dynamic_tinybert.training.objectives.length_drop import LengthDrop
from dynamic_tinybert.training.tasks.question_answering.losses import (
    answer_loss,
    answer_probabilities,
    soft_answer_loss,
)
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.tiny import tiny_bert


@pytest.fixture
def batch(tiny_checkpoint: Path, questions: Path) -> Mapping[str, Tensor]:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    return collate(answered_rows(Windowing(tokenize, 128), read_answered(questions).examples[:6]))


def test_full_teaches_the_smallest_and_random_configurations(
    batch: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[LengthConfig, Collection[int], ReferenceOutput]] = []
    forward = ReferenceModel.forward

    def noted(
        self: ReferenceModel, *, length_config: LengthConfig, skipped_layers: Collection[int] = (), **inputs: Tensor
    ) -> ReferenceOutput:
        output = forward(self, **inputs, length_config=length_config, skipped_layers=skipped_layers)
        calls.append((length_config, skipped_layers, output))
        return output

    monkeypatch.setattr(ReferenceModel, "forward", noted)
    objective = LengthDrop(tiny_bert(), layer_dropout=0.5).eval()
    skipped = 0
    for step in range(20):
        calls.clear()
        losses = objective(batch, TrainingStep(step, 100, 0))
        (full, whole, output), (smallest, all_layers, _), *drawn = calls
        assert full == LengthConfig.full(3)
        assert not whole
        assert not all_layers
        assert smallest.keep_ratios == pytest.approx((0.8, 0.64, 0.512))
        assert len(drawn) == 2
        for config, layers, _ in drawn:
            before = 1.0
            for ratio in config.keep_ratios:
                assert 0.8 * before - 1e-9 <= ratio <= before
                before = ratio
            skipped += len(layers)
        assert drawn[0][0] != drawn[1][0]
        taught = answer_probabilities(output.outputs, batch)
        soft = [soft_answer_loss(own.outputs, taught, batch) for _, _, own in calls[1:]]
        torch.testing.assert_close(losses["dropped"], torch.stack(soft).mean())
        torch.testing.assert_close(losses["answers"], answer_loss(output.outputs, batch))
    assert 40 < skipped < 80  # of 120


def test_without_layer_dropout_all_layers_run(batch: Mapping[str, Tensor]) -> None:
    objective = LengthDrop(tiny_bert(), layer_dropout=0.0)
    runs: list[object] = []
    for layer in encoder_of(objective.model).encoder.layer:
        layer.get_submodule("output").register_forward_hook(lambda *_: runs.append(None))
    objective(batch, TrainingStep(0, 1, 0))
    assert len(runs) == 3 * 4


def test_skipped_layers_are_as_good_as_gone(batch: Mapping[str, Tensor]) -> None:
    model, shallow = tiny_bert(), tiny_bert()
    del shallow.bert.encoder.layer[1]
    with torch.no_grad():
        actual = ReferenceModel(model)(
            **inputs_of(batch), length_config=LengthConfig((0.8, 0.7, 0.5)), skipped_layers=[1]
        )
        expected = ReferenceModel(shallow)(**inputs_of(batch), length_config=LengthConfig((0.8, 0.5)))
    assert actual.kept.keys() == {0, 2}
    torch.testing.assert_close(actual.start_logits, expected.start_logits)
    torch.testing.assert_close(actual.end_logits, expected.end_logits)
