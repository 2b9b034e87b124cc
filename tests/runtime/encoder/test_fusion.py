from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from openvino import opset13
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear, quantize_linears
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.modeling.scorer import ContextRule, scorer_weights
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder import graph as selection
from dynamic_tinybert.runtime.encoder.graph_walk import producers
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.patterns import Product
from dynamic_tinybert.runtime.encoder.plain_graph import give_float_weights
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.tiny import tiny_bert

with_selection = partial(selection.with_selection, task=QUESTION_ANSWERING)

LAYERS, HEADS, WIDTH = 3, 4, 64
FULL = LengthConfig.full(LAYERS)
DROPPING = LengthConfig((1, 0.6, 0.6))


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


def rewritten(plain: ov.Model, config: LengthConfig | None, *, learnt: bool, fused: bool) -> ov.Model:
    torch.manual_seed(0)
    modules: list[Scorer | ContextRule] = [Scorer(WIDTH), Scorer(WIDTH), ContextRule()] if learnt else []
    scorers = dict(enumerate(map(scorer_weights, modules))) or None
    return with_selection(plain, config, num_layers=LAYERS, num_heads=HEADS, scorers=scorers, fused=fused)


def selected(plain: ov.Model, config: LengthConfig | None, *, learnt: bool, fused: bool) -> ov.CompiledModel:
    graph = rewritten(plain, config, learnt=learnt, fused=fused)
    return extension_library.core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def kinds(graph: ov.CompiledModel) -> Counter[str]:
    """Executed nodes by kind; matrix products with their precision."""
    found: Counter[str] = Counter()
    for node in graph.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        found[f"{kind} {precision}" if kind == "FullyConnected" else kind] += 1
    return found


def test_all_layers_are_one_node(model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]) -> None:
    found = kinds(selected(write_ir(model, quantized), FULL, learnt=False, fused=True))
    assert found["FullyConnected i8"] + found["FullyConnected u8"] == 0
    assert found["Reference"] == 3  # one of the embeddings, one of the head
    assert not any(found[name] for name in ("MVN", "FakeQuantize", "Transpose", "Subgraph", "Slice", "ShapeOf"))


@pytest.mark.parametrize(
    ("config", "learnt"),
    [
        (FULL, False),
        (DROPPING, False),
        (DROPPING, True),
        (LengthConfig((1, 1, 1), (None, 0.5, None)), True),
        (LengthConfig((1, 1, 1), (None, 0.5, 0.5)), True),
        (LengthConfig((1, 1, 0.5)), True),
    ],
    ids=["full", "attention", "learnt", "threshold", "rule", "ranked by the layer before"],
)
def test_computes_what_the_graph_computed_before(
    isa: str,
    model: BertForQuestionAnswering,
    quantized: Mapping[str, QuantizedLinear],
    config: LengthConfig,
    learnt: bool,
) -> None:
    of_fp32, of_int8 = write_ir(model), write_ir(model, quantized)
    in_floats = of_int8.clone()
    give_float_weights(in_floats)  # OpenVINO's own INT8 products saturate on some CPUs
    plain, fused, fp32 = (
        selected(ir, config, learnt=learnt, fused=fuse)
        for ir, fuse in ((in_floats, False), (of_int8, True), (of_fp32, False))
    )
    by_fusion, by_int8 = [], []
    for length in range(20, 120, 7):
        inputs = dict(random_batch([length], 100, seed=length))
        a, b, c = (graph(inputs)["start_logits"] for graph in (plain, fused, fp32))
        by_fusion.append(np.abs(a - b).mean())
        by_int8.append(np.abs(a - c).mean())
    # A value halfway between two steps may be rounded to either, which the logits of its whole sequence then show.
    assert np.median(by_fusion) < 0.3 * np.median(by_int8)


@pytest.mark.parametrize(("config", "learnt"), [(DROPPING, False), (DROPPING, True)], ids=["attention", "learnt"])
def test_computes_the_same_bits_with_any_instruction_set(
    model: BertForQuestionAnswering,
    quantized: Mapping[str, QuantizedLinear],
    config: LengthConfig,
    learnt: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, found = write_ir(model, quantized), []
    for isa in extension_library.available_isas():
        if isa != "scalar":  # whose GELU and softmax are no polynomials
            monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", isa)
            graph = selected(plain, config, learnt=learnt, fused=True)
            found.append([graph(dict(random_batch([n], 100, seed=n)))["start_logits"] for n in (1, 17, 60, 128)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_products_that_stay_openvinos_may_be_given_floats() -> None:
    odd = tiny_bert(hidden_size=30, num_attention_heads=3, intermediate_size=64)  # 30 is no multiple of 4
    batch = {name: torch.from_numpy(array) for name, array in random_batch([40], 100).items()}
    plain = write_ir(odd, quantize_linears(odd, [batch], skip={"qa_outputs"}))
    for floats, kind in ((True, np.float32), (False, np.int8)):
        fused = with_selection(plain, FULL, num_layers=LAYERS, num_heads=3, fused=True, float_weights=floats)
        left = [p for node in fused.get_ordered_ops() if (p := Product.of(node)) is not None]
        # All but the second of the feed-forward part, which reads 64 numbers; query, key and value are one.
        assert len(left) == 3 * LAYERS
        assert {product.weight.dtype for product in left} == {np.dtype(kind)}


def test_linears_that_stayed_in_fp32_are_not_merged_with_others(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]
) -> None:
    some = {name: linear for name, linear in quantized.items() if not name.endswith("1.attention.self.query")}
    plain, fused = (selected(write_ir(model, some), FULL, learnt=False, fused=fuse) for fuse in (False, True))
    assert kinds(fused)["FullyConnected f32"] == kinds(plain)["FullyConnected f32"] - 1  # the head is restore_logits'
    inputs = dict(random_batch([50], 100))
    np.testing.assert_allclose(fused(inputs)["start_logits"], plain(inputs)["start_logits"], atol=0.3)


def test_an_fp32_graph_selects_by_one_product_for_query_key_and_value(model: BertForQuestionAnswering) -> None:
    graph = selected(write_ir(model), DROPPING, learnt=False, fused=False)
    selecting, products = len(DROPPING.selecting_layers), 6
    assert kinds(graph)["FullyConnected f32"] == products * LAYERS - 2 * selecting  # the head is restore_logits'


@pytest.mark.parametrize("config", [FULL, LengthConfig((0.6, 0.6, 0.6))], ids=["full", "selecting"])
def test_embeddings_are_one_node_with_their_name(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear], config: LengthConfig
) -> None:
    found = []
    for fuse in (False, True):
        graph = rewritten(write_ir(model, quantized), config, learnt=False, fused=fuse)
        output = NamedNodes(graph)["embeddings.output"]
        assert output.get_type_name() == ("QuantizedEmbeddings" if fuse else "Add")
        graph.add_results([opset13.result(output, name="embeddings")])
        found.append(extension_library.core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
    for lengths in ([1], [128], [5, 60, 33]):
        plain, fused = (graph(dict(random_batch(lengths, 100)))[len(graph.outputs) - 1] for graph in found)
        np.testing.assert_allclose(fused, plain, rtol=0, atol=2e-5)


def test_words_in_8_bits_are_not_copied(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]
) -> None:
    plain = write_ir(model, quantized)
    fused = rewritten(plain, FULL, learnt=False, fused=True)
    words = producers(NamedNodes(fused)["embeddings.output"])[2]
    assert np.shares_memory(words.data, producers(parts_of_embeddings(plain)["words"])[0].data)


@pytest.mark.parametrize(
    ("part", "port", "other"),
    [
        ("normal", 1, np.array([1])),
        ("positions", 1, np.array([1])),
        ("positions", 2, np.array([9])),
        ("positions", 3, np.array([2])),
        ("positions", 4, np.array([1])),
        ("segments", 0, np.ones((2, 1), np.float32)),
        ("scales", 0, np.ones((100, WIDTH), np.float32)),
        ("scales", 1, "token_type_ids"),
        ("words", 0, np.ones((100, WIDTH), np.uint8)),
        ("words", 1, np.array([[0, 1]])),
    ],
    ids=lambda value: None if isinstance(value, np.ndarray) else str(value),
)
def test_embeddings_that_are_written_otherwise_stay_as_they_are(
    model: BertForQuestionAnswering,
    quantized: Mapping[str, QuantizedLinear],
    part: str,
    port: int,
    other: npt.NDArray[Any] | str,
) -> None:
    plain = write_ir(model, quantized)
    by = NamedNodes(plain)[other] if isinstance(other, str) else opset13.constant(other)
    parts_of_embeddings(plain)[part].input(port).replace_source_output(by.output(0))
    fused = rewritten(plain, FULL, learnt=False, fused=True)
    assert NamedNodes(fused)["embeddings.output"].get_type_name() == "Add"
    types = Counter(node.get_type_name() for node in fused.get_ops())
    assert (types["QuantizedEmbeddings"], types["EncoderLayers"]) == (0, 1)


def test_embeddings_in_fp32_stay_as_they_are(model: BertForQuestionAnswering) -> None:
    fused = rewritten(write_ir(model), FULL, learnt=False, fused=True)
    assert NamedNodes(fused)["embeddings.output"].get_type_name() == "Add"


def parts_of_embeddings(graph: ov.Model) -> dict[str, ov.Node]:
    """What gathers, slices and normalises them, as the exporter writes it."""
    normal = producers(producers(NamedNodes(graph)["embeddings.output"])[0])[0]
    words_and_segments, positions = producers(producers(normal)[0])
    scaled, segments = producers(words_and_segments)
    converted, scales = producers(scaled)
    words = producers(converted)[0]
    return {"normal": normal, "positions": positions, "segments": segments, "scales": scales, "words": words}
