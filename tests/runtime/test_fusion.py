from collections import Counter
from collections.abc import Mapping

import numpy as np
import openvino as ov
import pytest
import torch
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration import QuantizedLinear, Scorer, quantize_linears
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.runtime import ops
from dynamic_tinybert.runtime.graph import with_selection
from dynamic_tinybert.runtime.length_config import LengthConfig

from tiny import arrays, tiny_bert

LAYERS, HEADS, WIDTH = 3, 4, 64
FULL = LengthConfig.full(LAYERS)
DROPPING = LengthConfig((1, 0.6, 0.6))

pytestmark = pytest.mark.skipif(not ops.int16_attention(), reason="this CPU multiplies integers no faster")


@pytest.fixture(scope="module")
def model() -> BertForQuestionAnswering:
    return tiny_bert(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=128)


@pytest.fixture(scope="module")
def quantized(model: BertForQuestionAnswering) -> Mapping[str, QuantizedLinear]:
    batches = [
        {name: torch.from_numpy(array) for name, array in random_batch([n], 100, seed=n).items()}
        for n in range(20, 60, 8)
    ]
    return quantize_linears(model, batches, skip={"qa_outputs"})


def selected(plain: ov.Model, config: LengthConfig | None, *, learnt: bool, fused: bool) -> ov.CompiledModel:
    torch.manual_seed(0)
    scorers = {layer: arrays(Scorer(WIDTH)) for layer in range(LAYERS)} if learnt else None
    graph = with_selection(plain, config, num_layers=LAYERS, num_heads=HEADS, scorers=scorers, fused=fused)
    return ops.core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def kinds(graph: ov.CompiledModel) -> Counter[str]:
    """Executed nodes by kind; matrix products with their precision."""
    found: Counter[str] = Counter()
    for node in graph.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        found[f"{kind} {precision}" if kind == "FullyConnected" else kind] += 1
    return found


def test_a_layer_is_four_nodes(model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]) -> None:
    found = kinds(selected(write_ir(model, quantized), FULL, learnt=False, fused=True))
    assert found["FullyConnected i8"] + found["FullyConnected u8"] == 0
    assert found["Reference"] == 4 * LAYERS
    before = {name: found[name] for name in ("MVN", "FakeQuantize", "Transpose", "Subgraph")}
    assert before == {"MVN": 1, "FakeQuantize": 0, "Transpose": 0, "Subgraph": 0}  # of the embeddings


@pytest.mark.parametrize(
    ("config", "learnt"),
    [(FULL, False), (DROPPING, False), (DROPPING, True), (LengthConfig((1, 1, 1), (None, 0.5, None)), True)],
    ids=["full", "attention", "learnt", "threshold"],
)
def test_computes_what_the_graph_computed_before(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear], config: LengthConfig, learnt: bool
) -> None:
    of_fp32, of_int8 = write_ir(model), write_ir(model, quantized)
    plain, fused, fp32 = (
        selected(ir, config, learnt=learnt, fused=fuse)
        for ir, fuse in ((of_int8, False), (of_int8, True), (of_fp32, False))
    )
    by_fusion, by_int8 = [], []
    for length in range(20, 120, 7):
        inputs = dict(random_batch([length], 100, seed=length))
        a, b, c = (graph(inputs)["start_logits"] for graph in (plain, fused, fp32))
        by_fusion.append(np.abs(a - b).mean())
        by_int8.append(np.abs(a - c).mean())
    # A value halfway between two steps may be rounded to either, which the logits of its whole sequence then show.
    assert np.median(by_fusion) < 0.3 * np.median(by_int8)


def test_linears_that_stayed_in_fp32_are_not_merged_with_others(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]
) -> None:
    some = {name: linear for name, linear in quantized.items() if not name.endswith("1.attention.self.query")}
    plain, fused = (selected(write_ir(model, some), FULL, learnt=False, fused=fuse) for fuse in (False, True))
    assert kinds(fused)["FullyConnected f32"] == kinds(plain)["FullyConnected f32"]
    inputs = dict(random_batch([50], 100))
    np.testing.assert_allclose(fused(inputs)["start_logits"], plain(inputs)["start_logits"], atol=0.3)


def test_an_fp32_graph_selects_by_one_product_for_query_key_and_value(model: BertForQuestionAnswering) -> None:
    graph = selected(write_ir(model), DROPPING, learnt=False, fused=False)
    selecting, products = len(DROPPING.selecting_layers), 6
    assert kinds(graph)["FullyConnected f32"] == products * LAYERS - 2 * selecting  # the head is restore_logits'
