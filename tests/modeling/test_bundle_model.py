"""The PyTorch twin of a bundle, against the checkpoint, an independent simulation of INT8, and the bundle's graph."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import quantize_linears
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling.bundle_model import LinearOfGraph, RoundingLinear, model_of_bundle, weights_of_bundle
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError

from fuzzing.mutations import make_digests_right
from support.fake_quantized import fake_quantized
from support.tiny import tiny_bert, write_tiny_bundle


def tensors(lengths: list[int], seed: int = 0, vocabulary: int = 100) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in random_batch(lengths, vocabulary, seed=seed).items()}


@pytest.fixture(scope="module")
def bert() -> BertForQuestionAnswering:
    return tiny_bert()


@pytest.fixture(scope="module")
def plain(bert: BertForQuestionAnswering, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("plain"), bert))


@pytest.fixture(scope="module")
def int8(bert: BertForQuestionAnswering, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, torch.nn.Module]:
    """An INT8 bundle with SmoothQuant, and PyTorch's simulation of it."""
    quantized = quantize_linears(bert, [tensors([40])], skip={"qa_outputs"})
    bundle = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("int8"), bert))
    ov.save_model(write_ir(bert, quantized), bundle.model_xml, compress_to_fp16=False)
    quantization = {"precision": "int8", "weight_bits": 8}
    return replace(bundle, quantization=quantization), fake_quantized(bert, quantized)


def test_the_twin_of_an_fp32_bundle_is_its_checkpoint(bert: BertForQuestionAnswering, plain: Bundle) -> None:
    twin = model_of_bundle(plain)
    assert twin.state_dict().keys() == bert.state_dict().keys() == weights_of_bundle(plain).keys()
    for name, weight in bert.state_dict().items():
        assert torch.equal(twin.state_dict()[name], weight), name
    batch = tensors([30, 17])
    with torch.no_grad():
        found, expected = (model(**batch).start_logits for model in (twin, bert))  # fused and eager attention
    real = batch["attention_mask"] > 0
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-5)
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())


def test_the_twin_of_an_int8_bundle_rounds_as_pytorchs_simulation(int8: tuple[Bundle, torch.nn.Module]) -> None:
    bundle, fake = int8
    twin, smooth = model_of_bundle(bundle), model_of_bundle(bundle, rounding=False)
    rounded, unrounded = [], []
    with torch.no_grad():
        for seed in range(12):
            batch = tensors([20 + seed], seed)
            expected = fake(**batch).start_logits
            rounded.append(float((twin(**batch).start_logits - expected).abs().max()))
            unrounded.append(float((smooth(**batch).start_logits - expected).abs().max()))
    # A value halfway between two steps may be rounded to either, which the logits of its whole sequence then show.
    assert np.median(rounded) < 1e-5
    assert np.median(unrounded) > 100 * np.median(rounded)


def test_weights_without_rounding_are_the_graphs(
    bert: BertForQuestionAnswering, int8: tuple[Bundle, torch.nn.Module]
) -> None:
    """SmoothQuant's factors are taken back, so they are the checkpoint's but for their own rounding."""
    weights = weights_of_bundle(int8[0])
    assert weights.keys() == bert.state_dict().keys()
    for name, weight in bert.state_dict().items():
        assert np.linalg.norm(weights[name] - weight.numpy()) <= 0.02 * float(weight.norm()), name
        if name.startswith(("qa_outputs", "bert.embeddings.position")):  # stay FP32
            np.testing.assert_array_equal(weights[name], weight.numpy())


def test_the_twin_of_the_embedded_bundle_computes_what_its_graph_does() -> None:
    """The graph's attention is in 16-bit integers, which flips the rounding of some activations."""
    bundle = open_bundle(default_bundle())
    runtime, differences, deviations = LengthAdaptiveModel(bundle), [], []
    twins = [model_of_bundle(bundle), model_of_bundle(bundle, rounding=False)]
    batch = random_batch([60, 120], bundle.vocab_size)
    expected, real = runtime(**batch, length_config="full"), batch["attention_mask"] > 0
    for twin in twins:
        with torch.no_grad():
            found = twin(**{name: torch.from_numpy(array) for name, array in batch.items()})
        differences.append(np.abs(found.start_logits.numpy() - expected.start_logits)[real].mean())
        deviations.append(expected.start_logits[real].std())
    assert differences[0] < 0.05 * deviations[0]
    assert differences[0] < differences[1] < 0.15 * deviations[1]


def test_a_rounded_product_is_exact_in_bfloat16_but_for_its_sum() -> None:
    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (8, 64)).astype(np.float32)
    scale, inv_scale = (random.uniform(0.01, 0.02, size).astype(np.float32) for size in (8, 64))
    layer = RoundingLinear(LinearOfGraph(weight, np.zeros(8, np.float32), scale, 0.1, inv_scale / 0.01, 100))
    rows = torch.from_numpy(random.normal(size=(5, 64)).astype(np.float32))
    levels = np.clip(np.rint(rows.numpy() * inv_scale / 0.01), -100, 155)
    expected = (levels @ weight.T) * scale * 0.1
    np.testing.assert_allclose(layer(rows).detach(), expected, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(layer(rows).detach().float(), expected, rtol=2**-8)


def test_rounding_has_the_gradient_of_the_identity_where_it_does_not_clip() -> None:
    linear = LinearOfGraph(np.ones((1, 3), np.float32), np.zeros(1, np.float32), np.ones(1, np.float32))
    rounding = replace(linear, step=0.5, inv_scale=np.full(3, 2, np.float32), zero_point=10)
    rows = torch.tensor([[1.3, -100.0, 0.0]], requires_grad=True)
    output = RoundingLinear(rounding)(rows)
    assert output.item() == pytest.approx(1.5 - 5.0)
    output.sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[1, 0, 1]]


def change_xml(bundle: Path, change: Callable[[str], str]) -> None:
    xml = bundle / "openvino_model.xml"
    changed = change(xml.read_text())
    assert changed != xml.read_text()
    xml.write_text(changed)
    make_digests_right(bundle)


def test_a_graph_that_no_model_can_be_made_of_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "gelu", tiny_bert())
    change_xml(folder, lambda text: text.replace('approximation_mode="ERF"', 'approximation_mode="TANH"'))
    with pytest.raises(BundleFormatError, match=r"reads a Gelu, not a GELU of the error function"):
        model_of_bundle(open_bundle(folder))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("layer.1.query", "queries, keys and values of layer 1 are not products of one state"),
        ("layer.0.output", "'layer.0.output' is not a LayerNorm of a sum"),
        ("logits", "the head has 0 linear layers, but question_answering has 1"),
    ],
)
def test_a_node_that_is_something_else_is_named(tmp_path: Path, node: str, message: str) -> None:
    """The node's values are doubled, by another node of its name."""
    bert = tiny_bert()
    folder = write_tiny_bundle(tmp_path / "bundle", bert)
    graph = write_ir(bert)
    (found,) = (own for own in graph.get_ordered_ops() if own.get_friendly_name() == node)
    targets = found.output(0).get_target_inputs()
    doubled = ov.opset13.multiply(found, np.float32(2))
    found.set_friendly_name("before")
    doubled.set_friendly_name(node)
    for target in targets:
        target.replace_source_output(doubled.output(0))
    if node == "logits":  # another kind of head
        found.input(1).replace_source_output(ov.opset13.add(np.zeros((1, 1, 2), np.float32), np.float32(0)).output(0))
    ov.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)
    make_digests_right(folder)
    with pytest.raises(BundleFormatError, match=re.escape(message)):
        model_of_bundle(open_bundle(folder))


def test_a_bundle_of_an_unknown_task_is_refused_by_name(plain: Bundle) -> None:
    with pytest.raises(BundleFormatError, match="unknown task 'poetry'"):
        model_of_bundle(replace(plain, task="poetry"))
