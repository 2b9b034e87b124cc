"""The reference against transformers itself, and against a loop that drops by masks instead of gathers."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.tiny import tiny_bert

Significance = Literal["attention", "learnt"]
LAYERS, HIDDEN, VOCABULARY = 3, 8, 50


@cache
def reference_of(significance: Significance) -> ReferenceModel:
    """A tiny reference in double precision, so that no two tokens are close by rounding alone."""
    model = tiny_bert(num_hidden_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=2, max_position_embeddings=300)
    scorers = {i: Scorer(HIDDEN, width=4, kernel_sizes=(3, 5)) for i in range(LAYERS)}
    return ReferenceModel(model, significance, scorers if significance == "learnt" else None).double().eval()


def random_batch(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Inputs of the given real lengths, padded; about a third of each is the first segment."""
    generator = torch.Generator().manual_seed(seed)
    positions, real_length = torch.arange(max(lengths)), torch.tensor(lengths)[:, None]
    real = (positions < real_length).long()
    ids = torch.randint(1, VOCABULARY, real.shape, generator=generator)
    return {
        "input_ids": ids * real,
        "attention_mask": real,
        "token_type_ids": (positions > real_length // 3).long() * real,
    }


def row_of(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    length = int(batch["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}


@dataclass
class Expected:
    logits: Tensor  # [L, 2]
    kept: dict[int, list[int]] = field(default_factory=dict)
    significance: dict[int, dict[int, float]] = field(default_factory=dict)  # layer → position → value


def drop_by_masks(
    model: BertForQuestionAnswering,
    scorers: Mapping[int, Scorer | ContextRule] | None,
    ids: Tensor,
    types: Tensor,
    length_config: LengthConfig,
) -> Expected:
    """One sequence without padding. All rows stay; a dropped one is hidden as a key and its state frozen."""
    w: dict[str, Tensor] = {name.removeprefix("bert."): t for name, t in model.state_dict().items()}
    length, heads = len(ids), model.config.num_attention_heads

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        variance = x.var(-1, unbiased=False, keepdim=True)
        scaled = (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + model.config.layer_norm_eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][types])
    alive = [True] * length
    ranks = scorers is None
    learnt: dict[int, float] | None = None  # position → the last significance that a scorer or a rule gave
    result = Expected(logits=torch.empty(0))
    for i, (ratio, threshold) in enumerate(zip(length_config.keep_ratios, length_config.thresholds, strict=True)):
        name = f"encoder.layer.{i}"
        query, key, value = (linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        context, received = torch.zeros_like(x), torch.zeros(length, dtype=x.dtype)
        size = x.shape[1] // heads
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            scores[:, ~torch.tensor(alive)] = -math.inf
            probabilities = torch.softmax(scores, -1)
            context[:, part] = probabilities @ value[:, part]
            received += probabilities[alive].sum(0)
        output = f"{name}.attention.output"
        attended = norm(f"{output}.LayerNorm", linear(f"{output}.dense", context) + x)
        present = [p for p in range(length) if alive[p]]
        if scorers and i in scorers:
            question = torch.tensor([[float(types[p] == 0) for p in present]], dtype=x.dtype)
            own = scorers[i](attended[present][None], question, torch.ones_like(question))[0].tolist()
            if isinstance(scorers[i], ContextRule) and learnt is not None:
                own = [kept * (1 + learnt[p]) for p, kept in zip(present, own, strict=True)]
            learnt = dict(zip(present, own, strict=True))
            ranks = ranks or isinstance(scorers[i], Scorer)
        if threshold is not None or (ratio < 1 and ranks):
            ranking = {p: float(received[p]) if learnt is None else learnt[p] for p in present}
            ratio = ratio if ranks else 1.0
            best = sorted(present, key=lambda p: (-ranking[p], p))
            kept = best[: max(1, math.ceil(ratio * length - 1e-4))]
            if threshold is not None:
                kept = [p for p in kept if ranking[p] >= threshold] or best[:1]
            result.kept[i], result.significance[i] = sorted(kept), ranking
            alive = [p in kept for p in range(length)]
        intermediate = functional.gelu(linear(f"{name}.intermediate.dense", attended))
        after = norm(f"{name}.output.LayerNorm", linear(f"{name}.output.dense", intermediate) + attended)
        x = torch.where(torch.tensor(alive)[:, None], after, x)
    result.logits = linear("qa_outputs", x)
    return result


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(1, 8, 1), (2, 12, 3), (4, 32, 4), (6, 24, 12)])
@torch.no_grad()
def test_full_equals_transformers(layers: int, hidden: int, heads: int) -> None:
    model = tiny_bert(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads)
    batch = random_batch([17, 3, 11, 1])
    expected = model(**batch)
    actual = ReferenceModel(model)(**batch, length_config=LengthConfig.full(layers))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(actual.start_logits[real], expected.start_logits[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.end_logits[real], expected.end_logits[real], rtol=0, atol=1e-5)
    assert actual.kept == {}


@torch.no_grad()
def test_full_equals_transformers_on_a_real_checkpoint(checkpoint: Path) -> None:
    model = BertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    batch = random_batch([171, 17, 64], seed=1)
    expected = model(**batch)
    actual = ReferenceModel(model)(**batch, length_config=LengthConfig.full(model.config.num_hidden_layers))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(actual.start_logits[real], expected.start_logits[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.end_logits[real], expected.end_logits[real], rtol=0, atol=1e-5)


@st.composite
def length_configs(draw: st.DrawFn) -> LengthConfig:
    ratios = draw(st.lists(st.floats(0.05, 1), min_size=LAYERS, max_size=LAYERS))
    whole = draw(st.integers(0, LAYERS))  # so many layers start at ratio 1
    ratios = [1.0] * whole + sorted(ratios, reverse=True)[whole:]
    thresholds = draw(st.lists(st.none() | st.floats(0.05, 2.5), min_size=LAYERS, max_size=LAYERS))
    return LengthConfig(tuple(ratios), tuple(thresholds))


@pytest.mark.parametrize("significance", ["attention", "learnt"])
@settings(max_examples=40, deadline=None)
@given(
    length_config=length_configs(),
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_dropping_equals_a_loop_with_masks(
    significance: Significance, length_config: LengthConfig, lengths: list[int], seed: int
) -> None:
    reference, batch = reference_of(significance), random_batch(lengths, seed)
    scorers = {int(i): cast(Scorer, scorer) for i, scorer in reference.scorers.items()} or None
    actual = reference(**batch, length_config=length_config)
    assert set(actual.kept) == set(length_config.selecting_layers)
    assert all((kept < max(lengths)).any(0).all() for kept in actual.kept.values())  # no column of fillers alone
    for row, length in enumerate(lengths):
        alone = row_of(batch, row)
        expected = drop_by_masks(
            reference.model, scorers, alone["input_ids"][0], alone["token_type_ids"][0], length_config
        )
        logits = torch.stack([actual.start_logits, actual.end_logits], -1)[row, :length]
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-9)
        filler, before = max(lengths), list(range(length))
        for layer, kept in expected.kept.items():
            if layer not in length_config.selecting_layers:
                assert kept == before
                continue
            before = kept
            fillers = [filler] * (actual.kept[layer].shape[1] - len(kept))
            assert actual.kept[layer][row].tolist() == kept + fillers
            entering = actual.entering[layer][row].tolist()
            values = actual.significance[layer][row].tolist()
            assert {p: v for p, v in zip(entering, values, strict=True) if p < filler} == pytest.approx(
                expected.significance[layer], rel=0, abs=1e-9
            )


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["scorer", "rule", None]), min_size=LAYERS, max_size=LAYERS),
    length_config=length_configs(),
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_layers_without_a_scorer_go_by_the_nearest_before(
    kinds: list[str | None], length_config: LengthConfig, lengths: list[int], seed: int
) -> None:
    whole = reference_of("learnt")
    scorers = {
        i: ContextRule().double() if kind == "rule" else cast(Scorer, whole.scorers[str(i)])
        for i, kind in enumerate(kinds)
        if kind is not None
    }
    thresholds = tuple(t if i in scorers else None for i, t in enumerate(length_config.thresholds))
    length_config = LengthConfig(length_config.keep_ratios, thresholds)
    batch = random_batch(lengths, seed)
    actual = ReferenceModel(whole.model, "learnt", scorers)(**batch, length_config=length_config)
    for row, length in enumerate(lengths):
        alone = row_of(batch, row)
        expected = drop_by_masks(whole.model, scorers, alone["input_ids"][0], alone["token_type_ids"][0], length_config)
        logits = torch.stack([actual.start_logits, actual.end_logits], -1)[row, :length]
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-9)
        for layer, kept in actual.kept.items():
            assert [p for p in kept[row].tolist() if p < max(lengths)] == expected.kept[layer]


@pytest.mark.parametrize("significance", ["attention", "learnt"])
@torch.no_grad()
def test_a_row_of_a_batch_equals_running_alone(significance: Significance) -> None:
    reference, lengths = reference_of(significance), [20, 7, 1, 13]
    batch = random_batch(lengths)
    length_config = LengthConfig((0.9, 0.5, 0.3), (None, 0.6, None))
    together = reference(**batch, length_config=length_config)
    for row, length in enumerate(lengths):
        alone = reference(**row_of(batch, row), length_config=length_config)
        torch.testing.assert_close(together.start_logits[row, :length], alone.start_logits[0])
        torch.testing.assert_close(together.end_logits[row, :length], alone.end_logits[0])
        for layer, kept in alone.kept.items():
            n = kept.shape[1]
            assert together.kept[layer][row].tolist() == kept[0].tolist() + [20] * (together.kept[layer].shape[1] - n)


@pytest.mark.parametrize("significance", ["attention", "learnt"])
@torch.no_grad()
def test_forced_positions_are_kept_instead_of_the_most_significant(significance: Significance) -> None:
    reference, batch = reference_of(significance), random_batch([12, 5])
    length_config = LengthConfig((0.8, 0.4, 0.4))
    free = reference(**batch, length_config=length_config)
    # The positions that it chose itself, with more fillers than it needs, change nothing.
    same = {layer: functional.pad(kept, (0, 3), value=12) for layer, kept in free.kept.items()}
    again = reference(**batch, length_config=length_config, forced_positions=same)
    torch.testing.assert_close(again.start_logits, free.start_logits)
    torch.testing.assert_close(again.end_logits, free.end_logits)
    # Others are obeyed, and what is dropped in layer 0 cannot come back.
    others = torch.tensor([[1, 3, 11], [2, 12, 12]])
    forced = reference(**batch, length_config=length_config, forced_positions={0: others})
    assert torch.equal(forced.kept[0], others)
    assert torch.equal(forced.entering[1], others)
    with pytest.raises(InvalidInputError, match=r"\[2\] did not enter layer 1"):
        reference(
            **batch,
            length_config=length_config,
            forced_positions={0: others, 1: torch.tensor([[1, 2], [2, 12]])},
        )


@torch.no_grad()
def test_equally_significant_tokens_are_kept_from_the_front() -> None:
    reference = deepcopy(reference_of("learnt"))
    for scorer in reference.scorers.values():
        cast(Scorer, scorer).output.weight.zero_()
        cast(Scorer, scorer).output.bias.zero_()
    # Tokens 0 to 3 are protected and go first; the other twelve have sigmoid(0) and reach the threshold of 0.5.
    batch = random_batch([16])
    batch["token_type_ids"] = (torch.arange(16) > 3).long()[None]
    kept = reference(**batch, length_config=LengthConfig((0.75, 0.5, 0.1), (0.5, None, None))).kept
    assert {layer: positions[0].tolist() for layer, positions in kept.items()} == {
        0: list(range(12)),
        1: list(range(8)),
        2: [0, 1],
    }


@torch.no_grad()
def test_protected_tokens_pass_every_threshold_and_count_towards_the_ratio() -> None:
    reference, batch = reference_of("learnt"), random_batch([16])
    batch["token_type_ids"] = torch.tensor([[0] * 6 + [1] * 10])
    kept = reference(**batch, length_config=LengthConfig((1, 0.375, 0.25), (1.0, None, None))).kept
    assert kept[0].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert kept[1].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert kept[2].shape == (1, 4)


@torch.no_grad()
def test_a_threshold_that_nothing_reaches_keeps_the_most_significant() -> None:
    reference, batch = reference_of("attention"), random_batch([16, 4])
    actual = reference(**batch, length_config=LengthConfig((1, 1, 1), (1e6, None, None)))
    expected = (actual.significance[0] * batch["attention_mask"]).argmax(1, keepdim=True)
    assert torch.equal(actual.kept[0], expected)


@torch.no_grad()
def test_the_ratio_is_taken_of_the_original_length() -> None:
    length_config = LengthConfig((0.5, 0.09, 0.05))
    kept = reference_of("attention")(**random_batch([300, 100]), length_config=length_config).kept
    assert [(kept[layer] < 300).sum(1).tolist() for layer in range(LAYERS)] == [[150, 50], [27, 9], [15, 5]]


def test_gradients_reach_weights_and_scorers() -> None:
    reference, batch = deepcopy(reference_of("learnt")), random_batch([16, 9])
    output = reference(**batch, length_config=LengthConfig((0.9, 0.6, 0.3)))
    ranking = torch.stack([values.sum() for values in output.significance.values()])
    (output.start_logits.square().sum() + output.end_logits.square().sum() + ranking.sum()).backward()
    without = [name for name, p in reference.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # softmax ignores what is added to all keys alike
    assert [name for name in without if not name.endswith("attention.self.key.bias")] == []


def test_the_weights_are_shared_not_copied() -> None:
    model = tiny_bert()
    assert ReferenceModel(model).model is model


def test_another_number_of_layers_is_refused() -> None:
    with pytest.raises(LengthConfigError, match="2 keep ratios"):
        reference_of("attention")(**random_batch([8]), length_config=LengthConfig((1, 0.5)))


def test_a_layer_without_scorer_has_no_scale_for_a_threshold() -> None:
    reference = ReferenceModel(tiny_bert(), "learnt", {1: Scorer(32)})
    only_layer_1 = LengthConfig((1, 1, 1), (None, 0.5, None))
    assert set(reference(**random_batch([8]), length_config=only_layer_1).kept) == {1}
    with pytest.raises(LengthConfigError, match=r"layers \[0, 2\] have a threshold"):
        reference(**random_batch([8]), length_config=LengthConfig((1, 1, 1), (0.5, 0.5, 0.5)))
