"""Learnt selection: each objective against loops, and against the model as it is deployed."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import RULE_THRESHOLD, Scorer, with_context_rule
from dynamic_tinybert.modeling.scorer_passes import draw_shares, keeping_all
from dynamic_tinybert.modeling.scorer_targets import ScorerTarget, scorer_loss
from dynamic_tinybert.modeling.tasks.question_answering import TASK, near_answer
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training import TrainingOptions, train
from dynamic_tinybert.training.batches import TokenBatch, collate, inputs_of
from dynamic_tinybert.training.objectives.base import TrainingStep
from dynamic_tinybert.training.objectives.front import FrontSampling
from dynamic_tinybert.training.objectives.relaxed import RelaxedSelection, share_of_macs
from dynamic_tinybert.training.objectives.relaxed_pass import relaxed_pass
from dynamic_tinybert.training.objectives.scorer_objective import ScorerObjective
from dynamic_tinybert.training.objectives.scorers_only import ScorersOnly
from dynamic_tinybert.training.tasks.question_answering.losses import (
    answer_loss,
    answer_probabilities,
    soft_answer_loss,
    soft_labels,
)
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.tiny import tiny_bert

LAYERS = (0, 1, 2)


@pytest.fixture
def batch(tiny_checkpoint: Path, questions: Path) -> TokenBatch:
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    windows = answered_rows(Windowing(tokenize, 128), read_answered(questions).examples[:6])
    random = np.random.default_rng(0)
    logits = [3 * random.normal(size=(2, len(w))).astype(np.float16).T for w in windows]
    return collate([replace(w, teacher_logits=own) for w, own in zip(windows, logits, strict=True)])


def scorers(kernel_sizes: tuple[int, ...] = (3,)) -> dict[int, Scorer]:
    """Scorers whose logits differ between tokens."""
    torch.manual_seed(0)
    made = {layer: Scorer(32, width=8, kernel_sizes=kernel_sizes) for layer in LAYERS}
    for scorer in made.values():
        torch.nn.init.normal_(scorer.output.weight, std=0.5)
    return made


def droppable(batch: TokenBatch) -> Tensor:
    """1 for the tokens of contexts."""
    return batch["attention_mask"] * batch["token_type_ids"]


def thresholds_for(model: BertForQuestionAnswering, own: Mapping[int, Scorer], batch: TokenBatch) -> dict[int, Tensor]:
    """Thresholds of logits that keep fewer and fewer tokens; none is just at one."""
    with torch.no_grad():
        whole = ReferenceModel(model, "learnt", own)(**inputs_of(batch), length_config=keeping_all(3, LAYERS))
    real = batch["attention_mask"] > 0
    sample = SignificanceSample({i: whole.significance[i][real].numpy() for i in LAYERS}, 3)
    found = sample.length_config(Schedule((0.8, 0.65, 0.5))).thresholds
    return {i: torch.logit(torch.tensor(0.9999 * value)) for i, value in enumerate(found) if value is not None}


def test_answer_losses_are_cross_entropies_over_real_tokens(batch: TokenBatch) -> None:
    model, teacher = tiny_bert(), tiny_bert(seed=1)
    output, taught = model(**inputs_of(batch)), teacher(**inputs_of(batch))
    hard, soft = [], []
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        for name, label in (("start_logits", "start_positions"), ("end_logits", "end_positions")):
            own = output[name][row, :length].log_softmax(0)
            hard.append(-own[batch[label][row]])
            soft.append(-(taught[name][row, :length].softmax(0) * own).sum())
    torch.testing.assert_close(answer_loss(output, batch), torch.stack(hard).mean())
    probabilities = answer_probabilities(taught, batch)
    torch.testing.assert_close(soft_answer_loss(output, probabilities, batch), torch.stack(soft).mean())
    targets = torch.stack([taught.start_logits, taught.end_logits], 2).masked_fill(
        batch["attention_mask"][..., None] == 0, -torch.inf
    )
    torch.testing.assert_close(soft_answer_loss(output, targets.softmax(1), batch), torch.stack(soft).mean())


def test_soft_labels_are_half_the_datas_and_half_the_teachers(batch: TokenBatch) -> None:
    targets = soft_labels(batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        for side, label in enumerate(("start_positions", "end_positions")):
            expected = batch["teacher_logits"][row, :length, side].softmax(0) / 2
            expected[batch[label][row]] += 0.5
            torch.testing.assert_close(targets[row, :length, side], expected)
            assert not targets[row, length:].any()


def test_a_teacher_learns_nothing(batch: TokenBatch) -> None:
    model, teacher = tiny_bert(), tiny_bert(seed=1)
    soft_answer_loss(
        model(**inputs_of(batch)), answer_probabilities(teacher(**inputs_of(batch)), batch), batch
    ).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.qa_outputs.weight.grad is not None


@pytest.mark.parametrize("config", [LengthConfig((1, 1, 1), (-1, -1, -1)), LengthConfig((0.8, 0.6, 0.6))])
def test_the_scorers_loss_is_pytorchs_over_the_context_that_they_see(batch: TokenBatch, config: LengthConfig) -> None:
    own = scorers()
    output = ReferenceModel(tiny_bert(), "learnt", own)(**inputs_of(batch), length_config=config)
    target = torch.rand(batch["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    means = []
    for layer in config.selecting_layers:
        losses = []
        for row, context in enumerate(droppable(batch)):
            for position, chance in zip(output.entering[layer][row], output.significance[layer][row], strict=True):
                if position < len(context) and context[position]:
                    logit, wanted = torch.logit(chance.double()), target[row, position].double()
                    losses.append(
                        functional.binary_cross_entropy_with_logits(logit, wanted, pos_weight=torch.tensor(5.0))
                    )
        means.append(torch.stack(losses).mean())
    actual = scorer_loss(output, dict.fromkeys(config.selecting_layers, ScorerTarget(target)), droppable(batch))
    torch.testing.assert_close(actual, torch.stack(means).mean().float(), rtol=1e-4, atol=1e-5)


def test_a_hard_pass_is_the_deployed_model(batch: TokenBatch) -> None:
    model, own = tiny_bert(), scorers()
    thresholds, real = thresholds_for(model, own, batch), batch["attention_mask"] > 0
    config = LengthConfig((1, 1, 1), tuple(torch.stack(list(thresholds.values())).sigmoid().tolist()))
    with torch.no_grad():
        expected = ReferenceModel(model, "learnt", own)(**inputs_of(batch), length_config=config)
        actual = relaxed_pass(model, own, thresholds, batch, temperature=1.0, hard=True)
    length = batch["input_ids"].shape[1]
    kept = [int((positions < length).sum()) for positions in expected.kept.values()]
    assert int(batch["attention_mask"].sum()) > kept[0] > kept[1] > kept[2]
    torch.testing.assert_close(actual.outputs["start_logits"][real], expected.start_logits[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.outputs["end_logits"][real], expected.end_logits[real], rtol=0, atol=1e-5)
    shares = [float(share) * int(batch["attention_mask"].sum()) for share in actual.shares]
    assert shares == pytest.approx(kept)


@pytest.mark.parametrize("hard", [True, False])
def test_the_rule_drops_the_questions_words_in_training_as_when_deployed(batch: TokenBatch, hard: bool) -> None:
    """Four layers: the rule is in the third, behind the scorer of the first."""
    model, own = tiny_bert(num_hidden_layers=4), {0: scorers(kernel_sizes=())[0]}
    deployed = with_context_rule(own, 4, has_rule=True)
    assert deployed.keys() == {0, 2}
    config = LengthConfig((1.0,) * 4, (-1.0, None, RULE_THRESHOLD, None))  # the scorer keeps everything
    with torch.no_grad():
        expected = ReferenceModel(model, "learnt", deployed)(**inputs_of(batch), length_config=config)
        actual = relaxed_pass(model, deployed, {0: torch.tensor(-1e6)}, batch, temperature=1.0, hard=hard)
    real = batch["attention_mask"] > 0
    tolerance = 1e-5 if hard else 1e-2  # a soft mask's least gate is still attended to a little
    torch.testing.assert_close(
        actual.outputs["start_logits"][real], expected.start_logits[real], rtol=0, atol=tolerance
    )
    words = (batch["attention_mask"] * (1 - batch["token_type_ids"])).sum(1) - 2  # but for [CLS] and [SEP]
    dropped = [1 - float(share) for share in actual.shares]
    assert dropped[:2] == pytest.approx([0, 0], abs=1e-6)
    assert dropped[2:] == pytest.approx([float(words.sum() / real.sum())] * 2, abs=1e-3)


def test_soft_masks_harden_to_the_hard_choice(batch: TokenBatch) -> None:
    model, own = tiny_bert(), scorers(kernel_sizes=())  # neighbours differ
    thresholds = thresholds_for(model, own, batch)
    with torch.no_grad():
        hard = relaxed_pass(model, own, thresholds, batch, temperature=1.0, hard=True)
        distances = []
        for temperature in (1.0, 1e-2, 1e-5):
            soft = relaxed_pass(model, own, thresholds, batch, temperature=temperature, hard=False)
            distances.append(float((soft.outputs["start_logits"] - hard.outputs["start_logits"]).abs().max()))
    assert distances[0] > 0.1
    assert distances[2] < 0.01  # what is left of dropped tokens is attended to a little


@pytest.mark.parametrize("hard", [True, False])
def test_answers_and_cost_reach_scorers_and_thresholds(batch: TokenBatch, hard: bool) -> None:
    model, own = tiny_bert(), scorers()
    thresholds = {i: threshold.requires_grad_() for i, threshold in thresholds_for(model, own, batch).items()}
    for part in ("answers", "cost"):
        output = relaxed_pass(model, own, thresholds, batch, temperature=1.0, hard=hard)
        loss = answer_loss(output.outputs, batch) if part == "answers" else torch.stack(list(output.shares)).sum()
        gradients = torch.autograd.grad(loss, [*thresholds.values(), *(s.output.weight for s in own.values())])
        assert all(gradient.abs().max() > 0 for gradient in gradients), part
        if part == "cost":
            assert all(gradient < 0 for gradient in gradients[: len(LAYERS)])  # a higher threshold keeps less


def test_the_cost_is_that_of_the_products_with_weights() -> None:
    shares, hidden, intermediate = (0.7, 0.4, 0.4), 32, 48
    before, macs, full = 1.0, 0.0, 0.0
    for after in shares:
        macs += 4 * before * hidden**2 + 2 * after * hidden * intermediate
        full += 4 * hidden**2 + 2 * hidden * intermediate
        before = after
    cost = share_of_macs([torch.tensor(share) for share in shares], hidden, intermediate)
    assert float(cost) == pytest.approx(macs / full)


def test_shares_reach_from_mild_to_harsh() -> None:
    random = np.random.default_rng(0)
    drawn = [draw_shares((0, 1, 3), random) for _ in range(300)]
    last = [min(shares.values()) for shares in drawn]
    assert 0.13 <= min(last) < 0.15
    assert 0.45 < max(last) <= 0.5
    for shares in drawn:
        assert list(shares) == sorted(shares)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert max(shares.values()) < 1
    for layer in (0, 1, 3):  # each may select or not
        assert {layer in shares for shares in drawn} == {True, False}


def selective(kind: str, own: Mapping[int, Scorer]) -> ScorerObjective:
    if kind == "front":
        return FrontSampling(tiny_bert(), own)
    hard_from = 0.1 if kind == "straight-through" else 0.7
    return RelaxedSelection(tiny_bert(), own, macs_fewer=2.6, hard_from=hard_from)


def of_front(
    batch: TokenBatch, objective: FrontSampling, part: str, *, from_step: int = 50
) -> tuple[int, dict[str, Tensor]]:
    """The first step from one on whose pass is of this kind, and its losses."""
    for step in range(from_step, from_step + 30):
        losses = objective(batch, TrainingStep(step, total=100, seed=0))
        if part in losses:
            return step, losses
    raise AssertionError(part)


def assert_everything_learns(objective: ScorerObjective, losses: Mapping[str, Tensor]) -> None:
    weight = encoder_of(objective.model).embeddings.word_embeddings.weight
    assert torch.autograd.grad(losses["scorers"], weight, retain_graph=True)[0].any()
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def assert_scorers_learn_alone(objective: ScorerObjective, loss: Tensor) -> None:
    in_model = torch.autograd.grad(loss, list(objective.model.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in in_model)
    in_scorers = torch.autograd.grad(loss, [s.output.weight for s in objective.scorers().values()])
    assert all(gradient.any() for gradient in in_scorers)


@pytest.mark.parametrize("kind", ["straight-through", "soft-masks"])
def test_scorers_come_first_and_everything_learns(batch: TokenBatch, kind: str) -> None:
    objective = selective(kind, scorers())
    losses = objective(batch, TrainingStep(index=9, total=100, seed=0))
    assert losses.keys() == {"answers", "scorers"}
    assert_scorers_learn_alone(objective, losses["scorers"])
    losses = objective(batch, TrainingStep(index=50, total=100, seed=0))
    assert losses.keys() == {"answers", "scorers", "dropped", "cost"}
    assert_everything_learns(objective, losses)
    assert len(list(objective.parameters())) == len({id(p) for p in objective.parameters()})


def test_front_keeps_or_drops_and_everything_learns(batch: TokenBatch) -> None:
    objective = FrontSampling(tiny_bert(), scorers())
    passes = [objective(batch, TrainingStep(step, total=100, seed=0)).keys() for step in range(60)]
    assert all(parts in ({"full", "scorers"}, {"dropped", "scorers"}, {"dropped"}) for parts in passes)
    assert 0.1 < sum("full" in parts for parts in passes) / 60 < 0.45  # a quarter, also at the beginning
    _, losses = of_front(batch, objective, "full")
    assert_everything_learns(objective, losses)
    assert len(list(objective.parameters())) == len({id(p) for p in objective.parameters()})


def test_front_lets_new_scorers_learn_alone_at_first(batch: TokenBatch) -> None:
    objective = FrontSampling(tiny_bert())
    for step in range(10):
        losses = objective(batch, TrainingStep(step, total=100, seed=0))
        assert losses.keys() == {"full", "scorers"}
    assert_scorers_learn_alone(objective, losses["scorers"])
    of_front(batch, objective, "dropped", from_step=10)


def test_a_step_of_front_drops_what_the_deployed_model_drops(batch: TokenBatch) -> None:
    """At the thresholds that the batch's shares come to, its loss is that of the model with these thresholds."""
    objective = FrontSampling(tiny_bert(num_hidden_layers=4), {0: scorers()[0], 1: scorers()[1]}).eval()
    step, losses = of_front(batch, objective, "dropped")
    random = np.random.default_rng([0, step])
    random.random()
    shares = draw_shares([0, 1], random)
    tokens, kept = int(batch["attention_mask"].sum()), {}
    thresholds: list[float | None] = [None, None, RULE_THRESHOLD, None]
    for layer in shares:
        thresholds[layer] = -1.0
        asked = LengthConfig((1.0,) * 4, tuple(thresholds))
        output = objective.reference(**inputs_of(batch), length_config=asked)
        entered = output.entering[layer] < batch["input_ids"].shape[1]
        reached = output.significance[layer][entered].detach().sort(descending=True).values
        count = max(int(shares[layer] * tokens), int((reached >= 1).sum()))  # protected ones stay in any case
        thresholds[layer] = float(reached[min(count, len(reached)) - 1])
        kept[layer] = min(count, len(reached))
    output = objective.reference(**inputs_of(batch), length_config=LengthConfig((1.0,) * 4, tuple(thresholds)))
    for layer, count in kept.items():
        assert int((output.kept[layer] < batch["input_ids"].shape[1]).sum()) == count < tokens
    torch.testing.assert_close(losses["dropped"], soft_answer_loss(output.outputs, soft_labels(batch), batch))


@pytest.mark.parametrize("kind", ["front", "straight-through", "soft-masks"])
def test_a_step_draws_the_same_whatever_was_before(batch: TokenBatch, kind: str) -> None:
    objective = selective(kind, scorers()).eval()
    step = 50 if not isinstance(objective, FrontSampling) else of_front(batch, objective, "dropped")[0]
    first = objective(batch, TrainingStep(step, total=100, seed=0))
    torch.rand(5)
    np.random.rand(5)
    second = objective(batch, TrainingStep(step, total=100, seed=0))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    if isinstance(objective, FrontSampling):
        _, other = of_front(batch, objective, "dropped", from_step=step + 1)
        assert not torch.equal(first["dropped"], other["dropped"])


def test_only_scorers_learn_to_score(batch: TokenBatch) -> None:
    """The rule selects as well, but its significance is not compared with what is worth keeping."""
    objective = FrontSampling(tiny_bert(num_hidden_layers=6), {3: scorers()[0]}).eval()
    assert objective.reference.rule_layer == 4
    outputs: list[ReferenceOutput] = []
    objective.reference.register_forward_hook(lambda _, __, output: outputs.append(output))
    _, losses = of_front(batch, objective, "dropped")
    assert outputs[-1].entering.keys() == {3, 4}
    start, end = soft_labels(batch).clamp(min=1e-38).log().unbind(-1)
    near = near_answer(start, end, droppable(batch)).float()
    expected = scorer_loss(outputs[-1], {3: ScorerTarget(near)}, droppable(batch))
    torch.testing.assert_close(losses["scorers"], expected)


def test_an_early_scorer_learns_nothing_from_steps_that_drop(batch: TokenBatch) -> None:
    objective = FrontSampling(tiny_bert(num_hidden_layers=4), {0: scorers()[0]}).eval()
    _, losses = of_front(batch, objective, "dropped")
    assert losses.keys() == {"dropped"}


@pytest.mark.parametrize("kind", ["front", "straight-through", "soft-masks"])
def test_mixed_precision_leaves_scorers_exact(batch: TokenBatch, kind: str) -> None:
    objective = selective(kind, scorers())
    seen: list[Tensor] = []
    for scorer in objective.scorers().values():
        scorer.output.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(batch, TrainingStep(index=50, total=100, seed=0))
    assert seen
    assert all(output.dtype == torch.float32 for output in seen)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()


def test_early_scorers_learn_what_later_layers_need_from_passes_that_keep_everything(batch: TokenBatch) -> None:
    objective = FrontSampling(tiny_bert(), scorers()).eval()  # of three layers the last one is in the second half
    _, losses = of_front(batch, objective, "full")
    biases = zero_attention_biases(batch["input_ids"], 3)
    config = keeping_all(3, LAYERS)
    output = objective.reference(**inputs_of(batch), length_config=config, attention_bias=biases)
    labels, context = soft_labels(batch), droppable(batch)
    start, end = (labels.clamp(min=1e-38).log()).unbind(-1)
    near = near_answer(start, end, context).float()
    teacher = {"start_logits": start, "end_logits": end}
    importance = token_importance(TASK.importance_scalar(output.outputs, teacher, inputs_of(batch)), biases)
    targets = {layer: ScorerTarget((near + importance[layer]) / 2, weight_of_kept=1.0) for layer in (0, 1)}
    expected = scorer_loss(output, {**targets, 2: ScorerTarget(near)}, context)
    torch.testing.assert_close(losses["scorers"], expected)
    seen = set()
    for step in range(50):
        losses = objective(batch, TrainingStep(step, total=100, seed=0))
        if "dropped" in losses:
            seen.add("scorers" in losses)
        if "dropped" in losses and "scorers" in losses:
            own = [scorer.output.weight for scorer in objective.scorers().values()]
            *early, late = torch.autograd.grad(losses["scorers"], own, allow_unused=True)
            assert early == [None, None]
            assert late.any()
    assert seen == {False, True}  # the last scorer is not always asked


def test_a_model_of_one_layer_teaches_its_scorer_where_answers_are(batch: TokenBatch) -> None:
    objective = FrontSampling(tiny_bert(num_hidden_layers=1), {0: scorers()[0]}).eval()
    for part in ("full", "dropped"):
        _, losses = of_front(batch, objective, part)
        (gradient,) = torch.autograd.grad(losses["scorers"], [objective.scorers()[0].output.weight])
        assert gradient.any()


@pytest.mark.parametrize("part", ["full", "dropped"])
def test_scorers_alone_learn_what_front_teaches_them(batch: TokenBatch, part: str) -> None:
    alone, beside = ScorersOnly(tiny_bert(), scorers()), FrontSampling(tiny_bert(), scorers()).eval()
    beside.keeps_all = alone.keeps_all
    for step in range(50):
        losses = beside(batch, TrainingStep(step, total=100, seed=0))
        if part in losses and "scorers" in losses:
            break
    own = alone(batch, TrainingStep(step, total=100, seed=0))
    assert own.keys() == {"scorers"}
    torch.testing.assert_close(own["scorers"], losses["scorers"])  # without dropout, though it is training
    own["scorers"].backward()
    assert all(parameter.grad is None for parameter in alone.model.parameters())
    learning = [i for i, scorer in alone.scorers().items() if scorer.output.weight.grad is not None]
    assert learning == (list(LAYERS) if part == "full" else [2])
    for name, parameter in alone.scorer_of_layer.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_every_step_of_scorers_alone_teaches_one(batch: TokenBatch) -> None:
    alone = ScorersOnly(tiny_bert(), {0: scorers()[0]})  # an early layer
    for step in range(10):
        assert alone(batch, TrainingStep(step, total=10, seed=0))["scorers"] > 0


def test_scorers_alone_send_no_gradient_through_the_layers(batch: TokenBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    biases: list[Tensor] = []

    def noted(input_ids: Tensor, num_layers: int) -> dict[int, Tensor]:
        made = zero_attention_biases(input_ids, num_layers)
        biases.extend(made.values())
        return made

    monkeypatch.setattr("dynamic_tinybert.training.objectives.front.zero_attention_biases", noted)
    alone = ScorersOnly(tiny_bert(), scorers())
    for step in range(10):
        alone(batch, TrainingStep(step, total=10, seed=0))["scorers"].backward()
    assert biases
    assert all(bias.grad is None for bias in biases)


def test_training_scorers_alone_leaves_the_model_as_it_was(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    options = TrainingOptions(objective="scorers", max_steps=40, batch_size=16, dropout=0.0)
    result = train(tiny_checkpoint, tmp_path / "new", questions, options=options)
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(result.path)
    assert after.scorers.keys() == {0}  # all layers but the last two
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, after.model.state_dict()[name]), name
    first, last = ([losses["scorers"] for losses in part] for part in (result.losses[:10], result.losses[-10:]))
    assert sum(last) < sum(first)


@pytest.mark.parametrize(
    "objective", ["front", *(pytest.param(name, marks=pytest.mark.slow) for name in ("straight-through", "soft-masks"))]
)
def test_trained_selection_beats_what_the_checkpoint_knew(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path, objective: str
) -> None:
    options = TrainingOptions(
        objective=objective, max_steps=50, batch_size=16, learning_rate=3e-3, dropout=0.0, macs_fewer=1.6
    )
    result = train(tiny_checkpoint, tmp_path / "new", questions, options=options, validation=questions)
    trained = load_checkpoint(result.path)
    assert trained.scorers.keys() == {0}  # all layers but the last two
    assert result.losses[0].keys() == {"full" if objective == "front" else "answers", "scorers"}
    dropped = [losses["dropped"] for losses in result.losses if "dropped" in losses]
    assert len(dropped) > 20
    assert sum(dropped[-10:]) < sum(dropped[:10])
    after = {point.name: point for point in result.after}
    assert after["0.27"].macs < after["0.42"].macs
    assert after["0.42"].f1 > next(point.f1 for point in result.before if point.name == "0.42") + 10
    if objective == "front":
        assert "learnt" not in after
        return
    threshold = after["learnt"].thresholds[0]
    assert threshold is not None
    assert threshold > 1 / (1 + math.exp(3)) + 0.005  # where it began: the penalty on kept tokens moves it
