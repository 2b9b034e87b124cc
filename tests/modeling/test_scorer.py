import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dynamic_tinybert.modeling.scorer import ContextRule, Scorer, load_scorers, save_scorers, scorer_weights
from dynamic_tinybert.runtime.common.errors import BundleCorruptError, InvalidInputError, StorageError
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token

HIDDEN, WIDTH = 6, 8


@pytest.fixture
def scorer() -> Scorer:
    torch.manual_seed(0)
    return Scorer(HIDDEN, WIDTH, (3, 5), heads=3, head_size=2).double()


def random_input(lengths: list[int], questions: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    positions = torch.arange(max(lengths))
    state = torch.randn(len(lengths), max(lengths), HIDDEN, dtype=torch.float64)
    real = (positions < torch.tensor(lengths)[:, None]).double()
    return state, (positions < torch.tensor(questions)[:, None]).double(), real


def naive_significance(scorer: Scorer, state: np.ndarray, question: int) -> list[float]:
    """One sequence without padding, token by token; its first `question` tokens are protected."""
    w = {name: tensor.detach().numpy() for name, tensor in scorer.state_dict().items()}
    relu = np.vectorize(lambda v: max(v, 0.0))
    mean = sum(state[:question], np.zeros(HIDDEN)) / max(question, 1)
    heads = len(w["match.weight"][0])
    compared, asked = (
        [np.split(w[f"match_{of}.weight"] @ s, heads) for s in rows]
        for of, rows in (("token", state), ("question", state[:question]))
    )
    likeness = [
        [max((row[h] @ other[h] / math.sqrt(len(row[h])) for other in asked), default=0.0) for h in range(heads)]
        for row in compared
    ]
    hidden = [
        relu(w["input.weight"] @ np.concatenate([s, mean]) + w["input.bias"] + w["match.weight"] @ like)
        for s, like in zip(state, likeness, strict=True)
    ]
    for k in range(len(scorer.mix)):
        kernel = w[f"convolution.{k}.weight"][:, 0]
        half = kernel.shape[1] // 2
        seen = []
        pooled = np.zeros(len(hidden[0]))
        if k == len(scorer.mix) - 1:
            pooled = w["pool.weight"] @ np.max([pooled, *hidden[question:]], axis=0)
        for i in range(len(hidden)):
            total = w[f"convolution.{k}.bias"].copy()
            for offset in range(-half, half + 1):
                if 0 <= i + offset < len(hidden):
                    total += kernel[:, half + offset] * hidden[i + offset]
            seen.append(relu(w[f"mix.{k}.weight"] @ total + w[f"mix.{k}.bias"] + pooled))
        hidden = [h + s for h, s in zip(hidden, seen, strict=True)]
    logits = [float((w["output.weight"] @ h + w["output.bias"])[0]) for h in hidden]
    return [1 / (1 + math.exp(-v)) + (i < question) for i, v in enumerate(logits)]


def test_equals_a_loop_over_tokens_in_a_padded_batch(scorer: Scorer) -> None:
    lengths, questions = [9, 1, 5, 7], [3, 1, 5, 0]
    state, question, real = random_input(lengths, questions)
    significance = scorer(state, question, real)
    for row, (length, protected) in enumerate(zip(lengths, questions, strict=True)):
        expected = naive_significance(scorer, state[row, :length].numpy(), protected)
        np.testing.assert_allclose(significance[row, :length].detach().numpy(), expected, rtol=0, atol=1e-12)


def test_what_stands_in_the_padding_changes_nothing(scorer: Scorer) -> None:
    state, question, real = random_input([9, 4], [3, 2])
    other = torch.where(real[..., None] > 0, state, 1e3)
    kept = real.bool()
    assert torch.equal(scorer(state, question, real)[kept], scorer(other, question, real)[kept])


def test_significance_is_the_sigmoid_of_the_logits_plus_one_for_the_question(scorer: Scorer) -> None:
    state, question, real = random_input([9], [3])
    logits = scorer.logits(state, question, real)
    torch.testing.assert_close(scorer(state, question, real), 1 / (1 + torch.exp(-logits)) + question)


def test_a_new_scorer_finds_words_of_the_question_in_the_context() -> None:
    """A token is most like the question where it is one of its tokens."""
    scorer, random = Scorer(64), torch.Generator().manual_seed(0)
    question = torch.zeros(1, 12)
    question[0, :4] = 1
    state = torch.randn(1, 12, 64, generator=random)
    state[0, 7] = state[0, 2]
    likeness = scorer._likeness(state, question)[0, 4:].sum(1)
    assert int(likeness.argmax()) == 7 - 4


def test_is_differentiable(scorer: Scorer) -> None:
    torch.autograd.backward(scorer.logits(*random_input([9, 4], [3, 2])).sum())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in scorer.parameters())


def test_counts_the_macs_of_its_matmuls_and_convolutions() -> None:
    # input 384·64, convolutions of 9, 17, 65 and 65 taps, four mixes 64·64, output 64;
    # 4 heads of 32 numbers to compare with 16 tokens of a question
    weights = scorer_weights(Scorer(384))
    assert macs_per_token(weights) == 384 * 64 + (9 + 17 + 65 + 65) * 64 + 4 * 64 * 64 + 64 + (384 + 16) * 128 + 4 * 64


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\(9, 16\)"):
        Scorer(HIDDEN, WIDTH, (9, 16))


def test_the_file_has_the_documented_names_and_shapes(tmp_path: Path) -> None:
    save_scorers({2: Scorer(HIDDEN, WIDTH, (3, 5))}, tmp_path / "significance.safetensors")
    tensors = load_file(tmp_path / "significance.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "layer.2.input.weight": (WIDTH, 2 * HIDDEN),
        "layer.2.input.bias": (WIDTH,),
        "layer.2.match_token.weight": (4 * 32, HIDDEN),
        "layer.2.match_question.weight": (4 * 32, HIDDEN),
        "layer.2.match.weight": (WIDTH, 4),
        "layer.2.convolution.0.weight": (WIDTH, 1, 3),
        "layer.2.convolution.0.bias": (WIDTH,),
        "layer.2.convolution.1.weight": (WIDTH, 1, 5),
        "layer.2.convolution.1.bias": (WIDTH,),
        "layer.2.mix.0.weight": (WIDTH, WIDTH),
        "layer.2.mix.0.bias": (WIDTH,),
        "layer.2.mix.1.weight": (WIDTH, WIDTH),
        "layer.2.mix.1.bias": (WIDTH,),
        "layer.2.pool.weight": (WIDTH, WIDTH),
        "layer.2.output.weight": (1, WIDTH),
        "layer.2.output.bias": (1,),
    }


@pytest.mark.parametrize("sizes", [(), (1,), (9, 17), (3, 5, 7)])
def test_scorers_of_some_layers_come_back_from_the_file(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    written = {layer: Scorer(HIDDEN, WIDTH, sizes) for layer in (10, 1, 4)}
    save_scorers(written, tmp_path / "s.safetensors")
    read = load_scorers(tmp_path / "s.safetensors")
    assert list(read) == [1, 4, 10]
    state, question, real = (t.float() for t in random_input([9, 4], [3, 2]))
    for layer, scorer in read.items():
        assert scorer.kernel_sizes == sizes
        assert torch.equal(scorer(state, question, real), written[layer](state, question, real))


@pytest.mark.parametrize("breakage", ["missing file", "text", "tensor gone", "wrong shape"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, breakage: str) -> None:
    path = tmp_path / "significance.safetensors"
    tensors = {f"layer.0.{name}": tensor for name, tensor in Scorer(HIDDEN, WIDTH).state_dict().items()}
    if breakage == "tensor gone":
        del tensors["layer.0.mix.1.bias"]
    elif breakage == "wrong shape":
        tensors["layer.0.output.weight"] = torch.zeros(2, WIDTH)
    if breakage == "text":
        path.write_text("no tensors here")
    elif breakage != "missing file":
        save_file(tensors, path)
    with pytest.raises(BundleCorruptError, match=r"significance\.safetensors"):
        load_scorers(path)


def test_a_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        save_scorers({0: Scorer(HIDDEN, WIDTH)}, tmp_path / "nowhere" / "s.safetensors")


@pytest.mark.parametrize(
    ("question", "real", "expected"),
    [
        ([[1, 1, 1, 1, 0, 0, 0]], [[1, 1, 1, 1, 1, 1, 0]], [[1, 0, 0, 1, 1, 1, 1]]),  # [CLS] who ? [SEP] me [SEP]
        ([[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 1, 1, 1], [1, 1, 1, 0]], [[1, 0, 1, 1], [1, 1, 1, 1]]),  # no context
        ([[1, 0, 0]], [[1, 1, 1]], [[1, 1, 1]]),
        ([[1]], [[1]], [[1]]),
    ],
)
def test_the_rule_keeps_all_but_the_words_of_the_question(
    question: list[list[int]], real: list[list[int]], expected: list[list[int]]
) -> None:
    found = ContextRule()(torch.empty(0), torch.tensor(question, dtype=torch.float32), torch.tensor(real).float())
    assert found.tolist() == expected


def test_rules_are_kept_beside_scorers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_scorers({1: Scorer(HIDDEN, WIDTH), 2: ContextRule()}, tmp_path / "scorers.safetensors")
    assert load_file(tmp_path / "scorers.safetensors")["layer.2.context"].tolist() == [1.0]
    assert list(load_scorers(tmp_path / "scorers.safetensors")) == [1]
    assert macs_per_token(scorer_weights(ContextRule())) == 0
