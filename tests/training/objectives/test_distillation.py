from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.common.errors import CheckpointError, InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training import TrainingOptions, train
from dynamic_tinybert.training.batches import collate, inputs_of
from dynamic_tinybert.training.depth import mapped_layers, with_fewer_layers
from dynamic_tinybert.training.objectives.base import TrainingStep
from dynamic_tinybert.training.objectives.distillation import LayerDistillation, PredictionDistillation
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.answerable import write_checkpoint
from support.tiny import tiny_bert

STEP = TrainingStep(0, 1, 0)


@pytest.fixture
def batch(tiny_checkpoint: Path, questions: Path) -> Mapping[str, Tensor]:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    return collate(answered_rows(Windowing(tokenize, 128), read_answered(questions).examples[:6]))


def test_layers_are_mapped_evenly() -> None:
    assert mapped_layers(6, 3) == (1, 3, 5)
    assert mapped_layers(12, 6) == (1, 3, 5, 7, 9, 11)
    assert mapped_layers(12, 4) == (2, 5, 8, 11)
    assert mapped_layers(3, 3) == (0, 1, 2)
    assert mapped_layers(7, 3)[-1] == 6


def test_a_shallow_student_has_the_mapped_layers() -> None:
    model = tiny_bert(num_hidden_layers=4)
    student = with_fewer_layers(model, 2)
    for own, other in ((0, 1), (1, 3)):
        layer, expected = encoder_of(student).encoder.layer[own], model.bert.encoder.layer[other]
        for name, tensor in expected.state_dict().items():
            assert torch.equal(layer.state_dict()[name], tensor)
    assert model.config.num_hidden_layers == 4
    attention_of(student, 1).query.weight.data.zero_()
    assert attention_of(model, 3).query.weight.any()  # a copy


def hidden(model: BertForQuestionAnswering, batch: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """State before a layer and the attention probabilities in it."""
    model.set_attn_implementation("eager")
    output = model(**inputs_of(batch), output_hidden_states=True, output_attentions=True)
    return output.hidden_states[layer], output.attentions[layer]


def attention_of(model: BertForQuestionAnswering, layer: int) -> BertSelfAttention:
    return cast(BertSelfAttention, cast(BertLayer, model.bert.encoder.layer[layer]).attention.self)


def test_layer_losses_are_squared_differences_of_real_tokens(batch: Mapping[str, Tensor]) -> None:
    teacher = tiny_bert(seed=1, num_hidden_layers=4, hidden_size=48)
    objective = LayerDistillation(tiny_bert(num_hidden_layers=2), teacher).eval()
    losses = objective(batch, STEP)
    expected: dict[str, list[Tensor]] = {"embeddings": [], "states": []}
    states = objective.model(**inputs_of(batch), output_hidden_states=True).hidden_states
    taught = teacher(**inputs_of(batch), output_hidden_states=True).hidden_states
    for name, own, other in (("embeddings", 0, 0), ("states", 1, 2), ("states", 2, 4)):
        rows = [
            objective.projection(states[own][row, :length]) - taught[other][row, :length]
            for row, length in enumerate(batch["attention_mask"].sum(1).tolist())
        ]
        expected[name].append((torch.cat(rows) ** 2).mean())
    for name, found in expected.items():
        torch.testing.assert_close(losses[name], torch.stack(found).mean())


def test_attention_is_compared_before_the_softmax(batch: Mapping[str, Tensor]) -> None:
    """Scores up to a constant are logarithms of probabilities, so equal probabilities mean a loss of constants."""
    teacher, student = tiny_bert(seed=1), tiny_bert(seed=1)
    assert not any(LayerDistillation(student, teacher).eval()(batch, STEP).values())
    query = attention_of(student, 2).query
    query.weight.data *= 2  # doubles the last layer's scores
    query.bias.data *= 2
    losses = LayerDistillation(student, teacher).eval()(batch, STEP)
    state, probabilities = hidden(teacher, batch, 2)
    length = int(batch["attention_mask"][0].sum())
    attention = attention_of(teacher, 2)
    scores = []
    for row, own in enumerate(batch["attention_mask"].sum(1).tolist()):
        asks, holds = attention.query(state[row, :own]), attention.key(state[row, :own])
        for part in (slice(k, k + 8) for k in range(0, 32, 8)):
            scores.append(asks[:, part] @ holds[:, part].T / 8**0.5)
    torch.testing.assert_close(scores[0].softmax(1), probabilities[0, 0, :length, :length])
    expected = torch.cat([own.ravel() for own in scores]).square().mean() / 3  # of three layers one differs
    torch.testing.assert_close(losses["attention"], expected)
    assert losses["embeddings"] == 0


def test_another_number_of_heads_can_teach(batch: Mapping[str, Tensor]) -> None:
    objective = LayerDistillation(tiny_bert(num_attention_heads=2), tiny_bert(seed=1))
    loss = torch.stack(list(objective(batch, STEP).values())).sum()
    loss.backward()
    assert loss.isfinite()
    gradient = attention_of(objective.model, 0).query.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_a_teacher_stays_as_it_is(tiny_checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    teacher = write_checkpoint(tmp_path / "teacher", seed=3, num_hidden_layers=4, hidden_size=48)
    before = (teacher / "model.safetensors").read_bytes()
    options = TrainingOptions(objective="distill-layers", max_steps=40, batch_size=8, learning_rate=3e-3, dropout=0.0)
    result = train(tiny_checkpoint, tmp_path / "student", questions, options=options, teacher=teacher)
    for name in ("embeddings", "states", "attention"):
        losses = [losses[name] for losses in result.losses]
        assert sum(losses[-5:]) < sum(losses[:5])
    assert (teacher / "model.safetensors").read_bytes() == before
    assert load_checkpoint(result.path).model.config.hidden_size == 32
    assert "distilled from teacher" in (result.path / "README.md").read_text()
    options = replace(options, objective="distill-answers")
    again = train(result.path, tmp_path / "again", questions, options=options, teacher=teacher)
    assert sum(losses["answers"] for losses in again.losses[-5:]) < sum(x["answers"] for x in again.losses[:5])


def test_only_what_the_student_needs_is_trained_and_saved(batch: Mapping[str, Tensor]) -> None:
    student, teacher = tiny_bert(), tiny_bert(seed=1, hidden_size=48)
    objective = LayerDistillation(student, teacher)
    names = set(objective.state_dict())
    assert names == {f"model.{name}" for name in student.state_dict()} | {"projection.weight", "projection.bias"}
    objective.train()
    assert not teacher.training
    PredictionDistillation(student, teacher)(batch, STEP)["answers"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_who_cannot_teach_is_refused(tiny_checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    teacher = write_checkpoint(tmp_path / "teacher")
    text = (teacher / "tokenizer.json").read_text()
    (teacher / "tokenizer.json").write_text(text.replace('"who"', '"whom"'))
    options = TrainingOptions(objective="distill-answers", max_steps=1)
    with pytest.raises(CheckpointError, match=r"vocabularies differ, the token 'who' has id None there and \d+ here"):
        train(tiny_checkpoint, tmp_path / "new", questions, options=options, teacher=teacher)
    with pytest.raises(InvalidInputError, match="distill-answers needs a teacher"):
        train(tiny_checkpoint, tmp_path / "new", questions, options=options)
    with pytest.raises(InvalidInputError, match="fine-tune has no teacher"):
        train(tiny_checkpoint, tmp_path / "new", questions, teacher=tiny_checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
