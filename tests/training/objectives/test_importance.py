"""What tokens are worth to later layers, against what the answer loses without them."""

import pytest
import torch
from torch import Tensor

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.objectives.importance import open_gates, worth_of

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


def belief_of(batch: dict[str, Tensor]) -> Tensor:
    return (
        torch.randn(2, LENGTH, 2, generator=torch.Generator().manual_seed(1))
        .masked_fill(batch["attention_mask"][..., None] == 0, -torch.inf)
        .softmax(1)
    )


def run(model: ReferenceModel, batch: dict[str, Tensor], bias: dict[int, Tensor]) -> ReferenceOutput:
    output: ReferenceOutput = model(**batch, length_config=LengthConfig.full(LAYERS), attention_bias=bias)
    return output


@pytest.mark.parametrize("significance", ["learnt", "attention"])
def test_worth_is_the_change_of_the_answer_with_the_attention_received(
    batch: dict[str, Tensor], significance: str
) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS).double(), significance).eval()
    real, belief = batch["attention_mask"].double(), belief_of(batch).double()
    gates = {layer: gate.double().detach().requires_grad_() for layer, gate in open_gates(batch, LAYERS).items()}
    worth = worth_of(run(model, batch, gates), gates, belief, batch)
    assert worth.keys() == set(range(LAYERS - 1))

    def answer(layer: int, row: int, token: int, step: float) -> float:
        bias = {layer: torch.zeros(2, LENGTH, dtype=torch.double)}
        bias[layer][row, token] = step
        with torch.no_grad():
            output = run(model, batch, bias)
        logits = torch.stack([output.start_logits, output.end_logits], -1)[row]
        mean = (logits * real[row, :, None]).sum(0) / real[row].sum()
        return float((belief[row] * logits).sum() - mean.sum())

    for row, token in ((0, 0), (0, 5), (1, 3)):
        behind = 0.0
        for layer in reversed(range(1, LAYERS)):
            behind += abs(answer(layer, row, token, 1e-4) - answer(layer, row, token, -1e-4)) / 2e-4
            assert float(worth[layer - 1][row, token]) == pytest.approx(behind / (behind + 0.03), rel=1e-4)


def test_padding_is_worth_nothing_and_open_gates_change_nothing(batch: dict[str, Tensor]) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS), "learnt").eval()
    gates, padding = open_gates(batch, LAYERS), batch["attention_mask"] == 0
    gated, plain = run(model, batch, gates), run(model, batch, {})
    torch.testing.assert_close(gated.start_logits, plain.start_logits, rtol=0, atol=1e-5)
    for worth in worth_of(gated, gates, belief_of(batch), batch).values():
        assert not worth[padding].any()
        assert (worth[~padding] > 0).all()
        assert worth.max() < 1


def test_the_model_still_learns_afterwards(batch: dict[str, Tensor]) -> None:
    model = ReferenceModel(tiny_bert(num_hidden_layers=LAYERS), "learnt")
    gates = open_gates(batch, LAYERS)
    output = run(model, batch, gates)
    worth = worth_of(output, gates, belief_of(batch), batch)
    assert not any(own.requires_grad for own in worth.values())
    output.start_logits.sum().backward()
    assert model.model.bert.embeddings.word_embeddings.weight.grad is not None
