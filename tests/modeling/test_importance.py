"""Token importance, against finite differences of the answer's logits."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.tasks.question_answering import OUTPUTS, TASK
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.tiny import tiny_bert

LAYERS, LENGTH = 4, 9


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, 6:] = 0
    types = torch.zeros_like(mask)
    types[:, 4:] = 1
    return {
        "input_ids": torch.randint(5, 50, mask.shape) * mask,
        "attention_mask": mask,
        "token_type_ids": types * mask,
    }


def soft_labels(batch: dict[str, Tensor]) -> Tensor:
    return (
        torch.randn(2, LENGTH, 2, generator=torch.Generator().manual_seed(1))
        .masked_fill(batch["attention_mask"][..., None] == 0, -torch.inf)
        .softmax(1)
    )


def importance_scalar(outputs: Mapping[str, Tensor], labels: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """That of a teacher with these probabilities."""
    teacher = dict(zip(OUTPUTS, labels.clamp(min=1e-38).log().unbind(-1), strict=True))
    return TASK.importance_scalar(outputs, teacher, batch)


def run(model: ReferenceModel, batch: dict[str, Tensor], bias: dict[int, Tensor]) -> ReferenceOutput:
    output: ReferenceOutput = model(**batch, length_config=LengthConfig.full(LAYERS), attention_bias=bias)
    return output


@pytest.mark.parametrize("significance", ["learnt", "attention"])
def test_importance_is_the_change_of_the_answer_with_the_attention_received(
    batch: dict[str, Tensor], significance: str
) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS).double(), significance).eval()
    real, labels = batch["attention_mask"].double(), soft_labels(batch).double()
    zeros = zero_attention_biases(batch["input_ids"], LAYERS)
    biases = {layer: bias.double().detach().requires_grad_() for layer, bias in zeros.items()}
    scalar = importance_scalar(run(model, batch, biases).outputs, labels, batch)
    importance = token_importance(scalar, biases)
    assert importance.keys() == set(range(LAYERS - 1))

    def answer(layer: int, row: int, token: int, step: float) -> float:
        bias = {layer: torch.zeros(2, LENGTH, dtype=torch.double)}
        bias[layer][row, token] = step
        with torch.no_grad():
            output = run(model, batch, bias)
        logits = torch.stack([output.start_logits, output.end_logits], -1)[row]
        mean = (logits * real[row, :, None]).sum(0) / real[row].sum()
        return float((labels[row] * logits).sum() - mean.sum())

    for row, token in ((0, 0), (0, 5), (1, 3)):
        later = 0.0
        for layer in reversed(range(1, LAYERS)):
            later += abs(answer(layer, row, token, 1e-4) - answer(layer, row, token, -1e-4)) / 2e-4
            assert float(importance[layer - 1][row, token]) == pytest.approx(later / (later + 0.03), rel=1e-4)


def test_padding_has_no_importance_and_zero_biases_change_nothing(batch: dict[str, Tensor]) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS), "learnt").eval()
    biases, padding = zero_attention_biases(batch["input_ids"], LAYERS), batch["attention_mask"] == 0
    biased, plain = run(model, batch, biases), run(model, batch, {})
    torch.testing.assert_close(biased.start_logits, plain.start_logits, rtol=0, atol=1e-5)
    scalar = importance_scalar(biased.outputs, soft_labels(batch), batch)
    for importance in token_importance(scalar, biases).values():
        assert not importance[padding].any()
        assert (importance[~padding] > 0).all()
        assert importance.max() < 1


def test_the_model_still_learns_afterwards(batch: dict[str, Tensor]) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS), "learnt")
    biases = zero_attention_biases(batch["input_ids"], LAYERS)
    output = run(model, batch, biases)
    importance = token_importance(importance_scalar(output.outputs, soft_labels(batch), batch), biases)
    assert not any(own.requires_grad for own in importance.values())
    output.start_logits.sum().backward()
    assert model.model.get_parameter("bert.embeddings.word_embeddings.weight").grad is not None
