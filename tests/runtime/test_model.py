import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BertForQuestionAnswering

from dynamic_tinybert.export.parity import TokenBatch, random_batch
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import ContextRule, scorer_weights
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleFormatError,
    InferenceError,
    InvalidInputError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph, CompiledGraphs
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer

from support.manifests import rewrite_manifest
from support.tiny import tiny_bert, write_tiny_bundle

Change = Callable[[dict[str, npt.NDArray[Any]]], object]

HALF = LengthConfig((1, 0.7, 0.3))


@pytest.fixture(scope="module")
def tiny() -> BertForQuestionAnswering:
    return tiny_bert()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny: BertForQuestionAnswering) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), tiny, {"half": HALF})


@pytest.fixture(scope="module")
def model(bundle: Path) -> LengthAdaptiveModel:
    return LengthAdaptiveModel.from_pretrained(bundle, num_threads=2)


def test_a_bundle_that_names_no_task_answers_the_same(bundle: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(bundle, tmp_path / "older"))
    rewrite_manifest(older, lambda manifest: manifest.pop("task"))
    batch = random_batch([45, 30], 100)
    new, old = (LengthAdaptiveModel.from_pretrained(b)(**batch, length_config="half") for b in (bundle, older))
    np.testing.assert_array_equal(new.start_logits, old.start_logits)
    np.testing.assert_array_equal(new.end_logits, old.end_logits)
    assert new.kept_positions.keys() == old.kept_positions.keys() != set()


def test_a_task_that_this_release_does_not_know_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    newer = Path(shutil.copytree(bundle, tmp_path / "newer"))
    rewrite_manifest(newer, lambda manifest: manifest.update(task="reranking", format_version=2))
    with pytest.raises(BundleFormatError, match=r"task 'reranking'; .*question_answering.* pip install --upgrade"):
        LengthAdaptiveModel.from_pretrained(newer)


def answered(reference: ReferenceModel, batch: TokenBatch, config: LengthConfig) -> ReferenceOutput:
    with torch.inference_mode():
        output: ReferenceOutput = reference(**{n: torch.from_numpy(a) for n, a in batch.items()}, length_config=config)
    return output


@pytest.mark.parametrize("length_config", ["full", "half", (0.5, 0.5, 0.5), LengthConfig((1, 1, 1), (None, 6.0, 4.0))])
@pytest.mark.parametrize("elastic", [False, True])
def test_logits_and_kept_tokens_are_the_references(
    bundle: Path, tiny: BertForQuestionAnswering, length_config: str, elastic: bool
) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=1, elastic=elastic)
    config = model.resolve(length_config)
    for lengths in ([1], [45], [128], [30, 77]):
        batch = random_batch(lengths, 100)
        output = model(**batch, length_config=length_config)
        expected = answered(ReferenceModel(tiny), batch, config)
        real = batch["attention_mask"] == 1
        np.testing.assert_allclose(output.start_logits[real], expected.start_logits.numpy()[real], atol=1e-4)
        np.testing.assert_allclose(output.end_logits[real], expected.end_logits.numpy()[real], atol=1e-4)
        length = max(lengths)
        for layer in config.selecting_layers:
            for mine, theirs in zip(output.kept_positions[layer], expected.kept[layer].numpy(), strict=True):
                assert mine[mine < length].tolist() == theirs[theirs < length].tolist()


def test_learnt_significance(tmp_path: Path, tiny: BertForQuestionAnswering) -> None:
    torch.manual_seed(0)
    scorers = {1: Scorer(32), 2: Scorer(32)}
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, tiny, scorers=scorers))
    config = LengthConfig((1, 0.9, 0.8), (None, 0.5, 0.5))
    batch = random_batch([64, 30], 100)
    output = model(**batch, length_config=config)
    expected = answered(ReferenceModel(tiny, "learnt", scorers), batch, config)
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(output.start_logits[real], expected.start_logits.numpy()[real], atol=1e-4)
    assert len(output.kept_positions) == 2
    kept = [int(positions.shape[1]) for positions in output.kept_positions.values()]
    per_token = macs_per_token(scorer_weights(scorers[1]))
    plain = 2 * (4 * 64 * 32 * 32 + 2 * 64 * 64 * 32 + 2 * 64 * 32 * 64)
    first = model.executed_macs(config, 64, [64, 64, 64])
    assert first == 3 * plain // 2 + 2 * 64 * per_token
    assert model.executed_macs(config, 64, [64, *kept]) < first
    elastic = LengthAdaptiveModel.from_pretrained(tmp_path, elastic=True)
    np.testing.assert_allclose(
        elastic(**batch, length_config=config).start_logits[real], output.start_logits[real], atol=1e-5
    )
    for either in (model, elastic):
        with pytest.raises(LengthConfigError, match="no significance scorer"):
            either(**batch, length_config=LengthConfig((1, 1, 1), (0.5, None, None)))


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("ratios", [(0.9, 0.8, 0.6, 0.4, 0.2), (0.5, 0.5, 0.5, 0.5, 0.5), (1, 1, 0.4, 0.4, 0.1)])
def test_any_ratios_run_where_few_layers_have_a_scorer(
    tmp_path: Path, elastic: bool, ratios: tuple[float, ...]
) -> None:
    torch.manual_seed(0)
    bert, scorers = tiny_bert(num_hidden_layers=5), {1: Scorer(32), 3: ContextRule()}
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, bert, scorers=scorers), elastic=elastic)
    batch = random_batch([64, 30], 100)
    output = model(**batch, length_config=ratios)
    expected = answered(ReferenceModel(bert, "learnt", scorers), batch, LengthConfig(ratios))
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(output.start_logits[real], expected.start_logits.numpy()[real], atol=1e-4)
    kept, length = [64], 64
    for layer, ratio in enumerate(ratios):
        if layer in output.kept_positions:
            length = int((output.kept_positions[layer][0] < 64).sum())
        assert length == (64 if layer == 0 else -(-round(ratio * 640) // 10))
        kept.append(length)
    assert set(expected.kept) <= set(output.kept_positions)
    for layer, positions in expected.kept.items():
        assert [p for p in output.kept_positions[layer][0].tolist() if p < 64] == [
            p for p in positions[0].tolist() if p < 64
        ]
    h, f, macs = 32, 64, 64 * macs_per_token(scorer_weights(scorers[1]))  # one scorer; others go by what it said
    for before, after in pairwise(kept):
        macs += 4 * before * h * h + 2 * before * before * h + 2 * after * h * f
    assert model.executed_macs(ratios, 64, kept[1:]) == macs


@pytest.mark.parametrize("name", ["int8-attention", "int8-learnt", "attention", "learnt"])
def test_each_row_at_a_length_configuration_of_its_own(samples: dict[str, Path], name: str) -> None:
    """As alone in the elastic graph: to the bit in INT8, and in FP32 but for the last bits."""
    model = LengthAdaptiveModel.from_pretrained(samples[name], num_threads=2)
    alone = LengthAdaptiveModel.from_pretrained(samples[name], num_threads=2, elastic=True)
    configs = ["full", "half", (0.9, 0.8, 0.4, 0.2), None, LengthConfig((1, 0.5, 0.5, 0.5)), "half"]
    lengths = [64, 64, 60, 33, 57, 12]
    batch = random_batch(lengths, 100)
    output = model(**batch, length_configs=configs)
    for row, (config, length) in enumerate(zip(configs, lengths, strict=True)):
        one = {key: array[row : row + 1, :length] for key, array in batch.items()}
        expected = alone(**one, length_config=config)
        tolerance = 0 if name.startswith("int8") else 1e-5
        np.testing.assert_allclose(output.start_logits[row, :length], expected.start_logits[0], rtol=0, atol=tolerance)
        np.testing.assert_allclose(output.end_logits[row, :length], expected.end_logits[0], rtol=0, atol=tolerance)
        assert output.kept_positions.keys() == expected.kept_positions.keys()
        for layer, positions in expected.kept_positions.items():
            mine = output.kept_positions[layer][row]
            assert mine[mine < 64].tolist() == positions[0][positions[0] < length].tolist()
    assert len(model._graphs) == 1  # the elastic one, for all


def test_length_configurations_that_do_not_fit_the_rows(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)
    batch = random_batch([8, 8], 100)
    for given in ({"length_configs": ["half"]}, {"length_configs": ["half", "full"], "length_config": "half"}):
        with pytest.raises(InvalidInputError, match="as many length_configs as rows"):
            model(**batch, **given)
    with pytest.raises(LengthConfigError, match="unknown length configuration 'none'"):
        model(**batch, length_configs=["half", "none"])


@pytest.mark.parametrize("elastic", [False, True])
def test_a_rule_drops_the_words_of_the_question(tmp_path: Path, elastic: bool) -> None:
    torch.manual_seed(0)
    bert, scorers = tiny_bert(num_hidden_layers=4), {1: Scorer(32), 2: ContextRule()}
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, bert, scorers=scorers), elastic=elastic)
    config = LengthConfig((1, 1, 1, 1), (None, 0.5, 0.5, None))
    batch = random_batch([64, 30], 100)
    question = (batch["token_type_ids"] == 0) & (batch["attention_mask"] == 1)
    output = model(**batch, length_config=config)
    expected = answered(ReferenceModel(bert, "learnt", scorers), batch, config)
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(output.start_logits[real], expected.start_logits.numpy()[real], atol=1e-4)
    for row in range(2):
        before, after = (set(output.kept_positions[layer][row].tolist()) - {64} for layer in (1, 2))
        words = range(1, int(question[row].sum()) - 1)
        assert len(words) > 1
        assert before - after == set(words)


def test_damaged_scorers_are_refused(tmp_path: Path, tiny: BertForQuestionAnswering) -> None:
    opened = open_bundle(write_tiny_bundle(tmp_path, tiny, scorers={1: Scorer(32)}))
    assert opened.scorers is not None
    weights = load_file(opened.scorers)
    del weights["layer.1.mix.0.bias"]
    save_file(weights, opened.scorers)
    with pytest.raises(BundleCorruptError, match=r"layer 1 lacks \['mix.0.bias'\]"):
        LengthAdaptiveModel(opened)
    opened.scorers.write_bytes(b"no scorers")
    with pytest.raises(BundleCorruptError, match="cannot be read"):
        LengthAdaptiveModel(opened)


def without(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def of_shape(name: str, *shape: int) -> Change:
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


def holding(name: str, value: float) -> Change:
    def change(tensors: dict[str, npt.NDArray[Any]]) -> None:
        tensors[name].flat[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layer.1.mix.3.bias"), r"layer 1 lacks \['mix.3.bias'\]"),
        (of_shape("layer.1.input.weight", 64), r"input.weight of shape \[64\], but needs 2 dimensions"),
        (of_shape("layer.1.input.weight", 64, 65), r"input.weight of shape \[64, 65\], but .* need \[64, 64\]"),
        (of_shape("layer.1.match.weight", 64, 0), r"match.weight of shape \[64, 0\], but needs 2 dimensions of 1"),
        (of_shape("layer.1.match.weight", 64, 5), "compares 128 numbers, not a multiple of its 5 heads"),
        (of_shape("layer.1.match_question.weight", 64, 32), r"match_question.weight of shape \[64, 32\]"),
        (of_shape("layer.1.mix.0.weight", 64), r"mix.0.weight of shape \[64\], but .* need \[64, 64\]"),
        (of_shape("layer.1.convolution.0.weight", 64, 1, 4), "a convolution over 4 tokens"),
        (of_shape("layer.1.convolution.0.weight", 64, 3), r"convolution.0.weight of shape \[64, 3\]"),
        (of_shape("layer.1.pool.weight", 1, 1), r"pool.weight of shape \[1, 1\]"),
        (of_shape("layer.1.output.bias"), r"output.bias of shape \[\], but .* need \[1\]"),
        (holding("layer.1.mix.0.bias", np.nan), "layer.1.mix.0.bias holds nan, but must be finite"),
        (holding("layer.1.input.weight", -np.inf), "layer.1.input.weight holds -inf"),
        (lambda tensors: tensors.update({"layer.1.mix.0.bias": np.zeros(64)}), "is of type F64, but must be F32"),
        (of_shape("layer.2.context", 2), r"layer 2 has context of shape \[2\], but .* need \[1\]"),
        (of_shape("layer.3.context", 1), "a scorer for layer 3, but there are at most 3 layers"),
        (of_shape(f"layer.{'9' * 5000}.context", 1), "a scorer for layer 99999999999999999999, but"),
    ],
)
def test_scorers_that_do_not_fit_are_refused(
    tmp_path: Path, tiny: BertForQuestionAnswering, change: Change, message: str
) -> None:
    opened = open_bundle(write_tiny_bundle(tmp_path, tiny, scorers={1: Scorer(32)}))
    assert opened.scorers is not None
    weights = load_file(opened.scorers)
    change(weights)
    save_file(weights, opened.scorers)
    with pytest.raises(BundleCorruptError, match=message):
        LengthAdaptiveModel(opened)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_logits_that_are_not_finite_are_an_error(tmp_path: Path, value: float) -> None:
    broken = tiny_bert()
    with torch.no_grad():
        broken.get_parameter("bert.encoder.layer.2.output.dense.weight").fill_(value)
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, broken))
    with pytest.raises(InferenceError, match=r"start_logits of token 0 in row 0 is .*nan: the weights"):
        model([[1, 2, 3]])
    with pytest.raises(InferenceError, match=r"is .*nan: the weights"):
        QuestionAnswerer(model)(question="who", context="the abc was in")


def test_mask_and_types_have_defaults(model: LengthAdaptiveModel) -> None:
    ids = np.arange(20).reshape(1, 20)
    explicit = model(ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids), length_config="full")
    np.testing.assert_array_equal(model(ids.tolist()).start_logits, explicit.start_logits)


def test_a_row_does_not_depend_on_its_batch(model: LengthAdaptiveModel) -> None:
    batch = random_batch([100, 17, 60], 100)
    together = model(**batch, length_config="half")
    for row, length in enumerate((100, 17, 60)):
        alone = model(**{name: array[row : row + 1, :length] for name, array in batch.items()}, length_config="half")
        np.testing.assert_allclose(together.start_logits[row, :length], alone.start_logits[0], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [1, 2, 3]}, r"shape \[batch, length\]"),
        ({"input_ids": np.zeros((1, 0), np.int64)}, "at least one token"),
        ({"input_ids": [[1.5, 2.0]]}, "must hold integers"),
        ({"input_ids": [[1, 2], [3]]}, "not a rectangular array"),
        ({"input_ids": [[5, 100]]}, r"input_ids holds 100, which is outside 0\.\.99"),
        ({"input_ids": [[5, -1]]}, r"input_ids holds -1"),
        ({"input_ids": np.array([[5, 2**63]], np.uint64)}, r"input_ids holds -9223372036854775808"),
        ({"input_ids": [[5, 6]], "token_type_ids": [[0, -1]]}, "token_type_ids holds -1"),
        ({"input_ids": [[5, 6]], "attention_mask": [[1, 2]]}, r"attention_mask holds 2"),
        ({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]}, "row 0 of attention_mask is all 0"),
        ({"input_ids": [[5, 6]], "attention_mask": [[1]]}, r"attention_mask has shape \(1, 1\)"),
        ({"input_ids": [[5, 6]], "token_type_ids": [[0, 2]]}, "token_type_ids holds 2"),
        ({"input_ids": np.zeros((1, 129), np.int64)}, "129 tokens are more than this model's 128"),
    ],
)
def test_bad_input_is_refused(model: LengthAdaptiveModel, inputs: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        model(**inputs)


def test_any_integers_in_any_layout_will_do(model: LengthAdaptiveModel) -> None:
    ids = np.arange(40).reshape(2, 20)
    expected = model(ids, length_config="half").start_logits
    for same in (ids.astype(np.int32), ids.astype(np.uint8), np.repeat(ids, 2, 1)[:, ::2], np.asfortranarray(ids)):
        np.testing.assert_array_equal(model(same, length_config="half").start_logits, expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("fastest", "unknown length configuration 'fastest'; this bundle has: full, half"),
        ((0.5, 0.6, 0.5), "larger than 0.5"),
        ((1, 0.5, 0), r"outside \(0, 1\]"),
        ((1, 1.5, 1), r"outside \(0, 1\]"),
        ((1, 0.5), "2 keep ratios"),
        ((1, 0.5, 10**400), "must be numbers"),
    ],
)
def test_bad_length_configurations_are_refused(model: LengthAdaptiveModel, config: str, message: str) -> None:
    with pytest.raises(LengthConfigError, match=message):
        model([[1, 2, 3]], length_config=config)


def test_eight_threads_get_the_answers_of_one(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=2)
    work = [
        (random_batch([5 + 3 * k], 100, seed=k), config)
        for k in range(40)
        for config in ("full", "half", (0.6, 0.5, 0.4))
    ]
    expected = [model(**batch, length_config=config).start_logits for batch, config in work]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda job: model(**job[0], length_config=job[1]).start_logits, work))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_signals_survive_a_model_that_another_thread_drops(bundle: Path) -> None:
    script = f"""
import signal, threading
from dynamic_tinybert.runtime import LengthAdaptiveModel
models = [LengthAdaptiveModel.from_pretrained({str(bundle)!r})]
models[0]([[1, 2, 3]])
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda number, frame: print("alive"))
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_only_so_many_compiled_graphs_are_kept(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, max_compiled=2)
    expected = model([[1, 2, 3]], length_config="full").start_logits
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda k: model([[1, 2, 3]], length_config=(1, 1, 0.3 + k / 10)), range(6)))
    assert len(model._graphs) == 2
    np.testing.assert_array_equal(model([[1, 2, 3]], length_config="full").start_logits, expected)


def test_a_configuration_that_fails_takes_no_place(bundle: Path) -> None:
    graphs = CompiledGraphs(limit=1)
    model = LengthAdaptiveModel.from_pretrained(bundle)
    good = graphs.get("good", lambda: model._graph(HALF))

    def fail() -> CompiledGraph:
        raise InferenceError("no")

    with pytest.raises(InferenceError):
        graphs.get("bad", fail)
    assert graphs.get("good", fail) is good


def test_warm_up_compiles_what_requests_need(bundle: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle)
    model.warm_up(lengths=[20])
    assert len(model._graphs) == 2
    model.warm_up([(0.5, 0.5, 0.5)], lengths=[20])
    assert len(model._graphs) == 3


@pytest.mark.skipif("avx512f" not in cpu.flags(), reason="OpenVINO computes in bfloat16 only with AVX-512")
def test_bfloat16_is_close(bundle: Path) -> None:
    batch = random_batch([60, 31], 100)
    one, other = (
        LengthAdaptiveModel.from_pretrained(bundle, precision=p)(**batch, length_config="half") for p in ("f32", "bf16")
    )
    assert one.kept_positions.keys() == other.kept_positions.keys()
    real = batch["attention_mask"] == 1
    assert 0 < np.abs(one.start_logits - other.start_logits)[real].mean() < 0.1


def test_properties_reach_openvino_and_two_forms_of_one_are_refused(bundle: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"num_threads and ov_config\['INFERENCE_NUM_THREADS'\]"):
        LengthAdaptiveModel.from_pretrained(bundle, num_threads=1, ov_config={"INFERENCE_NUM_THREADS": 2})
    model = LengthAdaptiveModel.from_pretrained(bundle, ov_config={"NO_SUCH_PROPERTY": 1})
    with pytest.raises(InferenceError, match="NO_SUCH_PROPERTY"):
        model([[1, 2, 3]])


def test_compiled_graphs_are_cached_on_disk(bundle: Path, tmp_path: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, compiled_cache_dir=tmp_path)
    expected = model([[1, 2, 3]], length_config="half").start_logits
    assert list(tmp_path.glob("*.blob"))
    again = LengthAdaptiveModel.from_pretrained(bundle, compiled_cache_dir=tmp_path)
    np.testing.assert_array_equal(again([[1, 2, 3]], length_config="half").start_logits, expected)


def test_macs_count_what_each_layer_executes(model: LengthAdaptiveModel) -> None:
    h, f = 32, 64
    per_layer = [(100, 100), (100, 70), (70, 30)]
    expected = sum(
        3 * before * h * h + 2 * before * before * h + after * h * h + 2 * after * h * f for before, after in per_layer
    )
    assert model.executed_macs("half", 100, [100, 70, 30]) == expected


def test_runtime_imports_neither_torch_nor_transformers(bundle: Path) -> None:
    script = f"""
import sys
from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
import dynamic_tinybert.runtime.cli
model = LengthAdaptiveModel.from_pretrained({str(bundle)!r})
QuestionAnswerer(model)(question="who", context="the abc was in")
heavy = {{"torch", "transformers", "huggingface_hub", "optimum", "neural_compressor"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_op_that_refuses_is_an_error(tmp_path: Path, num_threads: int) -> None:
    broken = tiny_bert()
    with torch.no_grad():
        broken.get_parameter("bert.encoder.layer.0.attention.self.query.weight").fill_(float("nan"))
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path, broken), num_threads=num_threads)
    for _ in range(3):
        with pytest.raises(InferenceError, match=r"SelectTokens: significance .* is not finite"):
            model([[1, 2, 3]], length_config=(0.5, 0.5, 0.5))
