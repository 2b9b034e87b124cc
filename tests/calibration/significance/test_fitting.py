import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from torch.nn import functional

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.calibration.significance.fitting import Fit, fit_scorers
from dynamic_tinybert.calibration.significance.states import StateReader, States
from dynamic_tinybert.calibration.significance.teacher import ScorerTeacher
from dynamic_tinybert.calibration.significance.windows import BATCH_SIZE, batches_by_length, compact_windows
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.scorer import Scorer, save_scorers
from dynamic_tinybert.modeling.scorer_passes import keeping_all
from dynamic_tinybert.modeling.scorer_targets import TrainedScorer
from dynamic_tinybert.modeling.tasks.question_answering import TASK
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError, DataError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from fuzzing.mutations import make_digests_right
from support.tiny import tiny_bert, write_tiny_bundle

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bert()))


def examples(count: int, seed: int = 0) -> list[Example]:
    """Questions about random words."""
    random = np.random.default_rng(seed)
    words = ["who", "what", "where", "the", "was", "in", "of", "and", "1", "2", "3", "a", "b", "c"]

    def text(length: int) -> str:
        return " ".join(random.choice(words, length))

    return [Example(str(k), text(3), text(int(random.integers(20, 60))), (), "") for k in range(count)]


def fit(bundle: Bundle, count: int = 60, **options: float) -> Fit:
    arguments: dict[str, Any] = {"seconds": math.inf, "most_passes": 1, **options}
    return fit_scorers(bundle, examples(count), LAYERS, **arguments)


def test_states_are_those_of_pytorch(bundle: Bundle) -> None:
    tokenize = WindowTokenizer(bundle.tokenizer_json)
    windows = [w for e in examples(3) for w in tokenize(e.question, e.context, max_seq_len=128, doc_stride=64)]
    states = StateReader(bundle, LAYERS)(windows)

    seen: dict[int, torch.Tensor] = {}
    bert = tiny_bert()
    for layer in LAYERS:
        module = bert.get_submodule(f"bert.encoder.layer.{layer}.attention.output")
        module.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output}))
    inputs = {name: torch.from_numpy(array) for name, array in stack(windows).items()}
    with torch.no_grad():
        logits = bert(**inputs)
    real, own = states.real > 0, inputs["attention_mask"].bool().numpy()
    for layer in LAYERS:
        np.testing.assert_allclose(states.by_layer[layer][real], seen[layer].numpy()[own], atol=1e-4)
    np.testing.assert_allclose(states.outputs["start_logits"][real], logits.start_logits.numpy()[own], atol=1e-4)
    padding = ((0, 0), (0, real.shape[1] - logits.start_logits.shape[1]))
    np.testing.assert_array_equal(states.real, np.pad(inputs["attention_mask"], padding))
    np.testing.assert_array_equal(
        states.protected, np.pad(inputs["attention_mask"] * (1 - inputs["token_type_ids"]), padding)
    )


@pytest.mark.slow
def test_scorers_learn_where_the_model_answers(bundle: Bundle) -> None:
    before, after = fit(bundle, seconds=1e-9), fit(bundle, most_passes=40)
    assert before.windows < after.windows
    for layer in LAYERS:
        assert after.losses[layer] < 0.97 * before.losses[layer]


def test_significance_held_out_is_that_of_the_scorers(bundle: Bundle) -> None:
    """A naive loop over the questions held out: the first tenth of those shuffled by the seed."""
    fitted = fit(bundle)
    shuffled = np.random.default_rng(0).permutation(60)[:6]
    tokenize, read = WindowTokenizer(bundle.tokenizer_json), StateReader(bundle, LAYERS)
    for layer, scorer in fitted.scorers.items():
        expected: list[float] = []
        for index in shuffled:
            example = examples(60)[index]
            for window in tokenize(example.question, example.context, max_seq_len=128, doc_stride=64):
                states = read([window])
                with torch.no_grad():
                    significance = scorer(
                        *(torch.from_numpy(a) for a in (states.by_layer[layer], states.protected, states.real))
                    )
                expected += significance[states.real > 0].tolist()
        np.testing.assert_allclose(np.sort(fitted.significance[layer]), np.sort(expected), atol=1e-4)


def test_held_out_losses_are_pytorchs_over_the_context(bundle: Bundle) -> None:
    """The targets written as a loop: the chance that the answer starts or ends within two tokens, alone or with half
    the token importance, which the checkpoint's own model gives."""
    fitted = fit(bundle, count=20)
    shuffled = np.random.default_rng(0).permutation(20)[:2]
    tokenize, read = WindowTokenizer(bundle.tokenizer_json), StateReader(bundle, LAYERS)
    chosen = sorted((examples(20)[i] for i in shuffled), key=lambda e: len(e.question) + len(e.context))
    states = read([w for e in chosen for w in tokenize(e.question, e.context, max_seq_len=128, doc_stride=64)])
    question, real = torch.from_numpy(states.protected), torch.from_numpy(states.real)
    importance = importance_of_checkpoint(states)
    for layer, scorer in fitted.scorers.items():
        with torch.no_grad():
            logits = scorer.logits(torch.from_numpy(states.by_layer[layer]), question, real)
        losses: list[float] = []
        for row in range(len(real)):
            context = [j for j in range(real.shape[1]) if real[row, j] and not question[row, j]]
            start, end = (
                dict(zip(context, functional.softmax(torch.from_numpy(a[row, context]), 0).tolist(), strict=True))
                for a in (states.outputs["start_logits"], states.outputs["end_logits"])
            )
            for j in context:
                target, weight = min(1.0, sum(start.get(k, 0) + end.get(k, 0) for k in range(j - 2, j + 3))), 5
                if layer == 1:  # in the first half of three layers
                    target, weight = (target + float(importance[layer][row, j])) / 2, 1
                chance = torch.sigmoid(logits[row, j].double())
                losses.append(float(-weight * target * chance.log() - (1 - target) * (1 - chance).log()))
        assert fitted.losses[layer] == pytest.approx(np.mean(losses), rel=5e-3)  # importance in bfloat16


def importance_of_checkpoint(states: States) -> dict[int, torch.Tensor]:
    """Token importance of the model that the bundle was written from, in FP32."""
    inputs = {name: torch.from_numpy(array) for name, array in states.inputs.items()}
    biases = zero_attention_biases(inputs["input_ids"], 3)
    output = ReferenceModel(tiny_bert(), "learnt")(**inputs, length_config=LengthConfig.full(3), attention_bias=biases)
    return token_importance(TASK.importance_scalar(output.outputs, output.outputs, inputs), biases)


def test_late_scorers_also_learn_from_passes_that_drop(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states and targets of the tokens that are left when the scorer of layer 1 drops half of them."""
    monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda: False)  # which tokens are left depends on rounding
    torch.manual_seed(0)
    scorers = {layer: TrainedScorer(Scorer(32)) for layer in LAYERS}
    teacher = ScorerTeacher(bundle, LAYERS)
    windows = compact_windows(measure_of(bundle), examples(4))
    states, full = teacher.full(windows)
    found = teacher.dropped(states, scorers, {1: 0.5, 2: 0.3})
    assert teacher.late_layers == [2] == list(found)
    reference = ReferenceModel(tiny_bert(), "learnt", scorers)
    inputs = {name: torch.from_numpy(array) for name, array in states.inputs.items()}
    with torch.no_grad():
        expected = reference(**inputs, length_config=keeping_all(3, LAYERS), shares={1: 0.5, 2: 0.3})
    entering = expected.entering[2]
    left = int((entering < inputs["input_ids"].shape[1]).sum())
    assert left == int(found[2].real.sum())
    assert left == pytest.approx(0.5 * states.real.sum(), abs=1)
    for row, positions in enumerate(entering.tolist()):
        for slot, position in enumerate(positions):
            if position < inputs["input_ids"].shape[1]:
                assert found[2].keep[row, slot] == full[2].keep[row, position]
                assert found[2].protected[row, slot] == full[2].protected[row, position]
    with torch.no_grad():
        own = scorers[2](found[2].state, found[2].protected, found[2].real)
    np.testing.assert_allclose(own[found[2].real > 0], expected.significance[2][found[2].real > 0], atol=1e-3)
    assert not teacher.dropped(states, scorers, {1: 0.5})  # nothing to learn for the late scorer


def test_a_graph_that_computes_something_else_than_its_twin_is_refused(tmp_path: Path) -> None:
    """The second layer's residual connection starts at the embeddings."""
    bert = tiny_bert()
    folder = write_tiny_bundle(tmp_path / "bundle", bert)
    graph = write_ir(bert)
    nodes = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    nodes["layer.1.attention.residual"].input(1).replace_source_output(nodes["embeddings.output"].output(0))
    ov.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)
    make_digests_right(folder)
    with pytest.raises(BundleFormatError, match=r"start_logits differ by .* from those of the PyTorch model"):
        fit(open_bundle(folder), count=20)


def test_labels_are_not_used(bundle: Bundle) -> None:
    plain, labelled = examples(30), [replace(e, answers=("wrong",)) for e in examples(30)]
    first, second = (fit_scorers(bundle, e, LAYERS, seconds=math.inf, most_passes=1) for e in (plain, labelled))
    assert first.losses == second.losses


def test_scorers_of_the_bundle_are_fitted_further(bundle: Bundle, tmp_path: Path) -> None:
    own = fit(bundle, seed=7, steps=1).scorers[1]
    save_scorers({1: own}, tmp_path / "scorers")
    full = {"full": NamedLengthConfig(LengthConfig.full(bundle.shape.num_layers))}
    (tmp_path / "bundle").mkdir()
    further = fit(write_recalibrated(bundle, tmp_path / "bundle", tmp_path / "scorers", full), steps=1).scorers

    def distance(other: Scorer) -> float:
        pairs = zip(own.state_dict().values(), other.state_dict().values(), strict=True)
        return max(float((a - b).abs().max()) for a, b in pairs)

    assert 0 < distance(further[1]) < 1e-3  # one small step
    assert distance(further[2]) > 0.1  # another scorer
    assert distance(fit(bundle, steps=1).scorers[1]) > 0.1


def test_a_number_of_steps_decides_alone(bundle: Bundle) -> None:
    assert 2 * BATCH_SIZE < fit(bundle, seconds=1e-9, steps=3).windows <= 3 * BATCH_SIZE  # one batch is smaller


def test_the_same_seed_gives_the_same_scorers(bundle: Bundle) -> None:
    first, second, other = fit(bundle), fit(bundle), fit(bundle, seed=1)
    assert first.losses == second.losses
    for layer in LAYERS:
        np.testing.assert_array_equal(first.significance[layer], second.significance[layer])
        assert first.losses[layer] != pytest.approx(other.losses[layer], rel=1e-3)


def test_questions_that_cannot_be_read_are_skipped_or_refused(bundle: Bundle) -> None:
    long = Example("long", "what " * 200, "who was in the 1", (), "")
    fitted = fit_scorers(bundle, [*examples(30), long], LAYERS, seconds=60, most_passes=1)
    assert fitted.windows > 20
    with pytest.raises(DataError, match="cannot read the questions to fit on: the question is too long"):
        fit_scorers(bundle, [long] * 20, LAYERS, seconds=60, most_passes=1)


@pytest.mark.parametrize("count", [1, BATCH_SIZE, 2 * BATCH_SIZE + 3])
def test_batches_hold_everything_once_and_neighbours_in_length(bundle: Bundle, count: int) -> None:
    windows = compact_windows(measure_of(bundle), examples(count))
    batches = batches_by_length(windows)
    assert sorted(window.input_ids.tolist() for batch in batches for window in batch) == sorted(
        window.input_ids.tolist() for window in windows
    )
    assert [len(batch) for batch in batches[:-1]] == [BATCH_SIZE] * (len(batches) - 1)
    lengths = [len(window) for batch in batches for window in batch]
    assert lengths == sorted(lengths)


def test_compact_windows_are_the_questions(bundle: Bundle) -> None:
    tokenize, measure = WindowTokenizer(bundle.tokenizer_json), measure_of(bundle)
    expected = [w for e in examples(3) for w in tokenize(e.question, e.context, max_seq_len=128, doc_stride=64)]
    found = compact_windows(measure, examples(3))
    for name, array in stack(found).items():
        np.testing.assert_array_equal(array, stack(expected)[name])
