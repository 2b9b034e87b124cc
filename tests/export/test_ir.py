import numpy as np
import openvino as ov
import pytest
import torch
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration import quantize_linears
from dynamic_tinybert.export.ir import quantize_rows, write_ir
from dynamic_tinybert.export.parity import Batch, random_batch

from tiny import tiny_bert


def compiled(graph: ov.Model) -> ov.CompiledModel:
    return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def largest_difference(model: BertForQuestionAnswering, graph: ov.CompiledModel, batch: Batch) -> float:
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    found = graph(dict(batch))
    real = batch["attention_mask"] == 1
    names = ("start_logits", "end_logits")
    return max(float(np.abs(found[n] - expected[n].numpy())[real].max()) for n in names)


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
        assert largest_difference(model, graph, random_batch(lengths, 100)) < 1e-5


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


def test_int8_graph_has_the_calibrated_ranges_and_int8_kernels_only() -> None:
    model = tiny_bert(hidden_size=64, num_attention_heads=2, intermediate_size=128)
    batches = [random_batch([n], 100, seed=n) for n in (20, 40, 60)]
    quantized = quantize_linears(
        model,
        [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches],
        skip={"qa_outputs"},
    )
    graph = write_ir(model, quantized)

    ranges = set()
    for node in graph.get_ops():
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input_value(k).get_node().get_data().item()) for k in (3, 4))
            ranges.add((round(low, 5), round(high, 5)))
    observed = {
        (
            round(-q.activation_zero_point * q.activation_scale, 5),
            round((255 - q.activation_zero_point) * q.activation_scale, 5),
        )
        for q in quantized.values()
    }
    assert ranges == observed

    runtime = compiled(graph).get_runtime_model()
    linears = [n for n in runtime.get_ops() if n.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    precisions = [n.get_rt_info()["runtimePrecision"].astype(str) for n in linears]
    assert precisions.count("f32") == 1  # the QA head
    assert sum(precision in ("i8", "u8") for precision in precisions) == 18


def test_int8_graph_stays_close_to_fp32() -> None:
    model = tiny_bert(hidden_size=64, num_attention_heads=2, intermediate_size=128)
    batches = [random_batch([n], 100, seed=n) for n in range(20, 60, 4)]
    quantized = quantize_linears(
        model,
        [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in batches],
        skip={"qa_outputs"},
    )
    graph = compiled(write_ir(model, quantized))
    with torch.inference_mode():
        spread = model(**{n: torch.from_numpy(a) for n, a in batches[0].items()}).start_logits.std()
    assert 0 < largest_difference(model, graph, batches[0]) < 0.5 * float(spread)


def test_embedding_rows_are_quantized_each_with_its_own_scale() -> None:
    table = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    table[3] *= 1000
    table[7] = 0
    values, scale = quantize_rows(table)
    assert values.dtype == np.int8
    assert np.all(np.abs(values * scale[:, None] - table) <= scale[:, None] / 2 * 1.001)
    assert not values[7].any()
