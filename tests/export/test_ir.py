from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear, quantize_linears
from dynamic_tinybert.export.ir import quantize_rows, write_ir
from dynamic_tinybert.export.parity import TokenBatch, random_batch
from dynamic_tinybert.modeling.scorer import Scorer, scorer_weights
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder import graph as selection
from dynamic_tinybert.runtime.encoder.plain_graph import give_float_weights
from dynamic_tinybert.runtime.encoder.scorer import LayerSignificance
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.fake_quantized import fake_quantized
from support.tiny import tiny_bert

with_selection = partial(selection.with_selection, task=QUESTION_ANSWERING)

Quantized = Mapping[str, QuantizedLinear]


def compiled(graph: ov.Model) -> ov.CompiledModel:
    core = extension_library.core()
    return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def tensors(batch: TokenBatch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def differences(model: BertForQuestionAnswering, graph: ov.CompiledModel, batch: TokenBatch) -> np.ndarray:
    """Absolute differences of the logits of all real tokens."""
    with torch.inference_mode():
        expected = model(**tensors(batch))
    found = graph(dict(batch))
    real = batch["attention_mask"] == 1
    return np.concatenate([np.abs(found[n] - expected[n].numpy())[real] for n in ("start_logits", "end_logits")])


@pytest.fixture(scope="module")
def model() -> BertForQuestionAnswering:
    return tiny_bert(hidden_size=64, num_attention_heads=2, intermediate_size=128)


@pytest.fixture(scope="module")
def quantized(model: BertForQuestionAnswering) -> Quantized:
    batches = [tensors(random_batch([n], 100, seed=n)) for n in range(20, 60, 8)]
    weight_bits = 7 if cpu.int8_products_saturate() else 8  # stock OpenVINO multiplies them here
    return quantize_linears(model, batches, weight_bits=weight_bits, skip={"qa_outputs"})


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_hidden_layers": 1, "hidden_size": 24, "num_attention_heads": 2},
        {"num_hidden_layers": 4, "intermediate_size": 48, "type_vocab_size": 3},
    ],
)
def test_graph_computes_what_transformers_computes(sizes: dict[str, int]) -> None:
    model = tiny_bert(**sizes)
    graph = compiled(write_ir(model))
    for lengths in ([1], [17], [128], [5, 60, 33]):
        assert differences(model, graph, random_batch(lengths, 100)).max() < 1e-5


def test_graph_survives_saving_with_its_names(tmp_path: object) -> None:
    model = tiny_bert()
    ov.save_model(write_ir(model), f"{tmp_path}/model.xml", compress_to_fp16=False)
    read = ov.Core().read_model(f"{tmp_path}/model.xml")
    names = {node.get_friendly_name() for node in read.get_ops()}
    parts = (
        "query",
        "key",
        "value",
        "attention",
        "context",
        "attention.residual",
        "attention.output",
        "output",
    )
    assert {"mask", "embeddings.output", "logits"} <= names
    assert {f"layer.{i}.{part}" for i in range(3) for part in parts} <= names
    assert [i.get_any_name() for i in read.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [o.get_any_name() for o in read.outputs] == ["start_logits", "end_logits"]


def producer(node: ov.Node, port: int = 0) -> ov.Node:
    return node.input_value(port).get_node()


def constant(node: ov.Node, port: int) -> np.ndarray:
    data: np.ndarray = producer(node, port).get_data()
    return data


def matmul_above(node: ov.Node) -> ov.Node:
    while node.get_type_name() != "MatMul":
        node = producer(node)
    return node


def encoder_matmuls(graph: ov.Model, num_layers: int) -> dict[str, ov.Node]:
    """The MatMul of each encoder Linear, found by walking up from the named nodes."""
    nodes = {node.get_friendly_name(): node for node in graph.get_ops()}
    found = {}
    for i in range(num_layers):
        prefix = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            found[f"{prefix}.attention.self.{part}"] = matmul_above(nodes[f"layer.{i}.{part}"])
        found[f"{prefix}.attention.output.dense"] = matmul_above(nodes[f"layer.{i}.attention.residual"])
        outer = found[f"{prefix}.output.dense"] = matmul_above(nodes[f"layer.{i}.output"])
        found[f"{prefix}.intermediate.dense"] = matmul_above(producer(outer))
    return found


def test_each_linear_has_its_own_range_smoothing_and_int8_weights(
    model: BertForQuestionAnswering, quantized: Quantized
) -> None:
    matmuls = encoder_matmuls(write_ir(model, quantized), num_layers=3)
    assert matmuls.keys() == quantized.keys()
    for name, matmul in matmuls.items():
        linear, fake_quantize, weight = quantized[name], producer(matmul, 0), producer(matmul, 1)
        assert fake_quantize.get_type_name() == "FakeQuantize"
        assert fake_quantize.get_attributes()["levels"] == 256
        scale, zero_point = linear.activation_scale, linear.activation_zero_point
        limits = [constant(fake_quantize, port).item() for port in (1, 2, 3, 4)]
        assert limits == pytest.approx([-zero_point * scale, (255 - zero_point) * scale] * 2, rel=1e-6), name
        assert producer(fake_quantize).get_type_name() == "Multiply"
        np.testing.assert_array_equal(constant(producer(fake_quantize), 1).ravel(), linear.smoothing, name)
        assert constant(producer(weight), 0).dtype == np.int8
        np.testing.assert_array_equal(constant(producer(weight), 0), linear.weight, name)
        np.testing.assert_array_equal(constant(weight, 1)[:, 0], linear.weight_scale, name)
    quantizers = {producer(matmul).get_friendly_name() for matmul in matmuls.values()}
    assert len(quantizers) == 12  # in each layer query, key and value share one


LEARNT = {layer: scorer_weights(Scorer(64, 16, (3, 5))) for layer in (1, 2)}


@pytest.mark.parametrize("scorers", [None, LEARNT], ids=["attention", "learnt"])
@pytest.mark.parametrize(
    "length_config",
    [
        LengthConfig.full(3),
        LengthConfig((1, 0.5, 0.3)),
        LengthConfig((1, 0.5, 0.3), (None, 0.1, 0.1)),
        pytest.param(None, id="elastic"),
    ],
    ids=str,
)
def test_every_encoder_linear_runs_in_int8_around_selection(
    model: BertForQuestionAnswering,
    quantized: Quantized,
    length_config: LengthConfig | None,
    scorers: Mapping[int, LayerSignificance] | None,
) -> None:
    plain = write_ir(model, quantized)
    graph = with_selection(plain, length_config, num_layers=3, num_heads=2, scorers=scorers, multiple=16)
    kernels = [node.get_rt_info() for node in compiled(graph).get_runtime_model().get_ops()]
    precisions = Counter(
        kernel["runtimePrecision"].astype(str)
        for kernel in kernels
        if kernel["layerType"].astype(str) == "FullyConnected"
    )
    selecting = 3 if length_config is None else len(length_config.selecting_layers)
    merged = 0 if scorers else 2 * selecting  # where attention selects, query, key and value are one product
    assert precisions["i8"] + precisions["u8"] == 6 * 3 - merged


@pytest.mark.parametrize("float_weights", [False, True], ids=["int8", "float"])
def test_int8_graph_computes_what_pytorch_computes_with_fake_quantization(
    model: BertForQuestionAnswering, quantized: Quantized, float_weights: bool
) -> None:
    written, fake = write_ir(model, quantized), fake_quantized(model, quantized)
    if float_weights:
        give_float_weights(written)
    graph = compiled(written)
    batches = [random_batch([n], 100, seed=n) for n in range(25, 105, 5)]  # none of the calibration's
    of_int8 = [differences(model, graph, batch) for batch in batches]
    of_graph = [differences(fake, graph, batch) for batch in batches]
    # A value halfway between two steps may be rounded to either, which the logits of its whole sequence then show.
    assert min(difference.max() for difference in of_graph) < 1e-5
    assert np.concatenate(of_graph).mean() < 0.2 * np.concatenate(of_int8).mean()


def test_embedding_rows_are_quantized_each_with_its_own_scale() -> None:
    table = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    table[3] *= 1000
    table[7] = 0
    values, scale = quantize_rows(table)
    assert values.dtype == np.int8
    assert np.all(np.abs(values * scale[:, None] - table) <= scale[:, None] / 2 * 1.001)
    assert not values[7].any()
