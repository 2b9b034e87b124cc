import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear
from dynamic_tinybert.calibration.report.decomposition import Decomposition, decompose
from dynamic_tinybert.calibration.report.fp32_graph import fp32_graph
from dynamic_tinybert.calibration.report.length_gain import gain_by_length
from dynamic_tinybert.calibration.search import latency
from dynamic_tinybert.export.ir import quantize_rows, write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle, write_manifest
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.length_config import executed_macs
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.tiny import tiny_bert, tiny_tokenizer, write_tiny_bundle

NAMED = {"some": LengthConfig((1, 0.7, 0.4)), "few": LengthConfig((1, 0.4, 0.2))}


@pytest.fixture(scope="module")
def bert() -> BertForQuestionAnswering:
    return tiny_bert(hidden_size=64, num_attention_heads=2, intermediate_size=128)


def quantized(bert: BertForQuestionAnswering) -> dict[str, QuantizedLinear]:
    """The encoder in INT8 by hand; only the inputs of attention and of the FFN are smoothed."""
    linears = {}
    generator = np.random.default_rng(0)
    smoothings: dict[str, np.ndarray] = {}
    for name, module in bert.named_modules():
        if not (isinstance(module, torch.nn.Linear) and name.startswith("bert.encoder")):
            continue
        reads, weight = name.rpartition(".")[0], module.weight.detach().numpy()
        smoothing = None
        if "output.dense" not in name:  # query, key and value read the same
            random = generator.uniform(0.5, 2, (1, weight.shape[1])).astype(np.float32)[0]
            smoothing = smoothings.setdefault(reads, random)
            weight = weight / smoothing
        linears[name] = QuantizedLinear(*quantize_rows(weight), 16 / 255, 128, smoothing)
    return linears


def dequantized(bert: BertForQuestionAnswering) -> BertForQuestionAnswering:
    """The PyTorch model with the values that its INT8 weights stand for, embeddings included."""
    model = BertForQuestionAnswering(bert.config)
    state = dict(bert.state_dict())
    for name, linear in quantized(bert).items():
        weight = linear.weight.astype(np.float32) * linear.weight_scale[:, None]
        state[f"{name}.weight"] = torch.from_numpy(weight * (1 if linear.smoothing is None else linear.smoothing))
    words = "bert.embeddings.word_embeddings.weight"
    table, scale = quantize_rows(state[words].numpy())
    state[words] = torch.from_numpy(table * scale[:, None])
    model.load_state_dict(state)
    model.eval()
    return model


def compiled(graph: ov.Model) -> ov.CompiledModel:
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return extension_library.core().compile_model(graph, "CPU", properties)


def logits_of(graph: ov.CompiledModel, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    outputs = graph(dict(batch))
    return np.stack([outputs["start_logits"], outputs["end_logits"]])[:, batch["attention_mask"] == 1]


def torch_logits(model: BertForQuestionAnswering, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    return torch.stack([outputs.start_logits, outputs.end_logits]).numpy()[:, batch["attention_mask"] == 1]


def matmul_precisions(graph: ov.CompiledModel) -> set[str]:
    """The precisions in which the compiled graph multiplies matrices by weights."""
    nodes = graph.get_runtime_model().get_ordered_ops()
    infos = [{key: value.astype(str) for key, value in node.get_rt_info().items()} for node in nodes]
    return {info["runtimePrecision"] for info in infos if info["layerType"] == "FullyConnected"}


def test_fp32_graph_computes_what_its_weights_stand_for(bert: BertForQuestionAnswering) -> None:
    graph = write_ir(bert, quantized(bert))
    batch = random_batch([40, 7, 63], 100, seed=0)
    int8, fp32, exact = compiled(graph), compiled(fp32_graph(graph)), compiled(write_ir(bert))
    np.testing.assert_allclose(logits_of(fp32, batch), torch_logits(dequantized(bert), batch), atol=1e-4)
    of_int8 = np.abs(logits_of(int8, batch) - logits_of(exact, batch)).mean()
    of_fp32 = np.abs(logits_of(fp32, batch) - logits_of(exact, batch)).mean()
    assert 0 < of_fp32 < of_int8


def test_fp32_graph_runs_fp32_kernels(bert: BertForQuestionAnswering) -> None:
    graph = write_ir(bert, quantized(bert))
    assert matmul_precisions(compiled(fp32_graph(graph))) == {"f32"}
    assert matmul_precisions(compiled(graph)) == {"i8", "f32"}  # f32: the head


def test_fp32_graph_leaves_the_given_one_alone(bert: BertForQuestionAnswering) -> None:
    graph = write_ir(bert, quantized(bert))
    before = [node.get_type_name() for node in graph.get_ordered_ops()]
    fp32_graph(graph)
    assert [node.get_type_name() for node in graph.get_ordered_ops()] == before
    plain = write_ir(bert)
    types = [node.get_type_name() for node in plain.get_ordered_ops()]
    assert [node.get_type_name() for node in fp32_graph(plain).get_ordered_ops()] == types


def write_int8_bundle(folder: Path, bert: BertForQuestionAnswering, named: Mapping[str, LengthConfig]) -> Path:
    fp32 = open_bundle(write_tiny_bundle(folder, bert, named))
    ov.save_model(write_ir(bert, quantized(bert)), fp32.model_xml, compress_to_fp16=False)
    write_manifest(
        folder,
        significance="attention",
        length_configs=fp32.length_configs,
        quantization={"precision": "int8", "weight_bits": 8},
        versions={},
        source={},
    )
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[list[Window]]:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    tokenize = WindowTokenizer(file)
    return [tokenize("who?", "a " * n, max_seq_len=128, doc_stride=16) for n in (11, 75, 99, 95, 119, 220, 260)]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph still runs, and is said to take a second for each row that enters it or goes on after a selection."""
    now, infer = 0.0, CompiledGraph.infer

    def timed(self: CompiledGraph, inputs: Arrays) -> Arrays:
        nonlocal now
        outputs = infer(self, inputs)
        now += inputs["input_ids"].shape[1]
        now += sum(int((array > 0).sum()) for name, array in outputs.items() if name.startswith("kept_tokens"))
        return outputs

    monkeypatch.setattr(CompiledGraph, "infer", timed)
    monkeypatch.setattr(latency, "perf_counter", lambda: now)


def up(length: int) -> int:
    return math.ceil(length / LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def simulated_ms(config: LengthConfig, length: int) -> float:
    kept = config.most_kept(length)
    return 1000.0 * (up(length) + sum(kept[layer] for layer in config.selecting_layers))


FULL = LengthConfig.full(3)


@pytest.mark.usefixtures("simulated")
def test_steps_of_an_int8_bundle(
    tmp_path: Path, bert: BertForQuestionAnswering, questions: list[list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx512_vnni"}))
    model = LengthAdaptiveModel.from_pretrained(write_int8_bundle(tmp_path / "int8", bert, NAMED), num_threads=1)
    windows = [window for own in questions for window in own]
    found = decompose(model, NAMED, windows, num_threads=1, repeats=2)
    mean = {c: np.mean([simulated_ms(c, len(window)) for window in windows]) for c in (FULL, *NAMED.values())}
    assert found.window == 128
    assert found.padded_ms == pytest.approx(128_000)
    assert found.unpadded_ms == found.int8_ms == pytest.approx(mean[FULL])
    assert found.dropping_ms == pytest.approx({name: mean[config] for name, config in NAMED.items()})


@pytest.mark.usefixtures("simulated")
def test_a_bundle_that_is_computed_in_floats_has_no_int8_step(
    tmp_path: Path, bert: BertForQuestionAnswering, questions: list[list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"ssse3"}))
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")
    model = LengthAdaptiveModel.from_pretrained(write_int8_bundle(tmp_path / "int8", bert, NAMED), num_threads=1)
    assert decompose(model, NAMED, questions[1], num_threads=1, repeats=1).int8_ms is None


@pytest.mark.usefixtures("simulated")
def test_an_fp32_bundle_has_no_int8_step(
    tmp_path: Path, bert: BertForQuestionAnswering, questions: list[list[Window]]
) -> None:
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path / "fp32", bert, NAMED), num_threads=1)
    found = decompose(model, NAMED, questions[1], num_threads=1, repeats=1)
    length = len(questions[1][0])
    assert found.int8_ms is None
    assert found.int8 is None
    assert found.unpadding == pytest.approx(128 / up(length))
    for name, config in NAMED.items():
        assert found.dropping[name] == pytest.approx(simulated_ms(FULL, length) / simulated_ms(config, length))


@pytest.mark.usefixtures("simulated")
def test_inputs_are_padded_to_the_size_that_windows_were_cut_to(tmp_path: Path) -> None:
    bert = tiny_bert(max_position_embeddings=512)
    model = LengthAdaptiveModel.from_pretrained(write_tiny_bundle(tmp_path / "fp32", bert, NAMED), num_threads=1)
    tokenize = WindowTokenizer(model.tokenizer_file)
    for size in (512, 96):
        first, *_ = tokenize("who?", "a " * 600, max_seq_len=size, doc_stride=16)
        assert len(first) == size
        found = decompose(model, NAMED, [first], num_threads=1, max_seq_len=size, repeats=1)
        assert found.window == size
        assert found.padded_ms == found.unpadded_ms == pytest.approx(1000 * size)


def test_steps_multiply_to_the_total() -> None:
    found = Decomposition(384, padded_ms=60.0, unpadded_ms=20.0, int8_ms=8.0, dropping_ms={"full": 8.0, "fast": 4.0})
    assert (found.unpadding, found.int8) == (3.0, 2.5)
    assert found.dropping == {"full": 1.0, "fast": 2.0}
    assert found.total == {"full": 7.5, "fast": 15.0}
    assert json.loads(json.dumps(found.to_dict())) == {
        "window": 384, "padded_ms": 60.0, "unpadded_ms": 20.0, "int8_ms": 8.0,
        "dropping_ms": {"full": 8.0, "fast": 4.0}, "unpadding": 3.0, "int8": 2.5,
        "dropping": {"full": 1.0, "fast": 2.0}, "total": {"full": 7.5, "fast": 15.0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, bert: BertForQuestionAnswering) -> LengthAdaptiveModel:
    scorers = {layer: Scorer(64, 8, (3,)) for layer in (1, 2)}
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "learnt", bert, scorers=scorers)
    return LengthAdaptiveModel.from_pretrained(folder, num_threads=1)


@pytest.mark.usefixtures("simulated")
def test_gain_by_length(learnt: LengthAdaptiveModel, questions: list[list[Window]]) -> None:
    gains = {gain.name: gain for gain in gain_by_length(learnt, NAMED, questions, per_length=2, repeats=1)}
    assert [len(own) for own in questions] == [1, 1, 1, 1, 1, 2, 3]
    lengths = {
        "100 tokens": [100, 104],  # the nearest two of several within 15 %
        "several windows": [len(window) for own in questions[-2:] for window in own],
    }
    assert gains.keys() == lengths.keys()  # nothing is near 200 or 384

    assert learnt.bundle.scorers
    per_token = {
        layer: macs_per_token(weights) for layer, weights in load_scorer_tensors(learnt.bundle.scorers).items()
    }

    def macs(config: LengthConfig, length: int) -> int:
        selects = ["learnt" if i in config.selecting_layers else None for i in range(3)]
        return executed_macs(learnt.bundle.shape, length, config.most_kept(length), selects, per_token)

    for name, gain in gains.items():
        assert gain.windows == len(lengths[name])
        assert gain.mean_length == pytest.approx(np.mean(lengths[name]))
        assert gain.full_ms == pytest.approx(np.mean([simulated_ms(FULL, n) for n in lengths[name]]))
        for config_name, config in NAMED.items():
            ms, of_full = (sum(simulated_ms(c, n) for n in lengths[name]) for c in (config, FULL))
            assert gain.speedup[config_name] == pytest.approx(of_full / ms)
            assert gain.macs_fewer[config_name] == pytest.approx(
                sum(macs(FULL, n) for n in lengths[name]) / sum(macs(config, n) for n in lengths[name])
            )
        assert json.loads(json.dumps(gain.to_dict()))["speedup"] == gain.speedup


def test_short_inputs_only_show_no_gain(learnt: LengthAdaptiveModel, questions: list[list[Window]]) -> None:
    assert gain_by_length(learnt, NAMED, questions[:1]) == []


def test_nothing_to_measure_is_refused(learnt: LengthAdaptiveModel) -> None:
    with pytest.raises(InvalidInputError, match="no windows"):
        decompose(learnt, NAMED, [])
