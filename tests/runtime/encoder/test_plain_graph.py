"""Which weights a bundle's graph multiplies, by bundle and CPU, and what comes out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear, quantize_linears
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.errors import BundleCorruptError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import compile_bundle, is_fused
from dynamic_tinybert.runtime.encoder.graph_walk import producers
from dynamic_tinybert.runtime.encoder.plain_graph import read_plain_graph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.fake_quantized import fake_quantized
from support.tiny import tiny_bert, write_tiny_bundle

AVX2 = frozenset({"avx2", "avx512f", "avx512bw"})
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
EIGHT_BITS = {"precision": "int8", "weight_bits": 8}


@pytest.fixture(scope="module")
def model() -> BertForQuestionAnswering:
    return tiny_bert()


@pytest.fixture(scope="module")
def quantized(model: BertForQuestionAnswering) -> Mapping[str, QuantizedLinear]:
    batch = {name: torch.from_numpy(array) for name, array in random_batch([40], 100, seed=0).items()}
    return quantize_linears(model, [batch], skip={"qa_outputs"})


@pytest.fixture(scope="module")
def int8_bundle(
    model: BertForQuestionAnswering,
    quantized: Mapping[str, QuantizedLinear],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    bundle = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle"), model))
    ov.save_model(write_ir(model, quantized), bundle.model_xml, compress_to_fp16=False)
    return bundle


def weights(model: ov.Model) -> set[str]:
    """Types of the constants that the encoder's products multiply by."""
    found = set()
    for matmul in model.get_ordered_ops():
        if matmul.get_type_name() == "MatMul" and producers(matmul)[0].get_type_name() == "FakeQuantize":
            node = producers(matmul)[1]
            while node.get_type_name() != "Constant":
                node = producers(node)[0]
            found.add(node.get_element_type().get_type_name())
    return found


@pytest.mark.parametrize(
    ("flags", "weight_bits", "expected"),
    [
        (AVX2, 8, {"f32"}),
        (frozenset(), 8, {"f32"}),
        (AVX2, 7, {"i8"}),  # whose sums cannot saturate
        (AVX2 | {"avx_vnni"}, 8, {"i8"}),
        (AVX2 | {"avx512_vnni"}, 8, {"i8"}),
    ],
)
def test_weights_are_floats_where_products_saturate_and_are_not_ours(
    int8_bundle: Bundle, flags: frozenset[str], weight_bits: int, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: flags)
    bundle = replace(int8_bundle, quantization={"precision": "int8", "weight_bits": weight_bits})
    for isa in extension_library.available_isas():
        monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", isa)
        assert weights(read_plain_graph(bundle, QUESTION_ANSWERING)) == (expected if isa == "scalar" else {"i8"})
        assert is_fused(bundle) == (isa != "scalar")


@pytest.mark.skipif(extension_library.available_isas() == ("scalar",), reason="no graph is fused here")
@pytest.mark.parametrize(
    ("flags", "weight_bits", "integers"), [(AVX2, 8, False), (AVX2, 7, True), (AVX2 | {"avx_vnni"}, 8, True)]
)
def test_products_of_a_fused_graph_that_stay_openvinos_are_floats_where_they_saturate(
    tmp_path: Path, flags: frozenset[str], weight_bits: int, integers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNAMIC_TINYBERT_ISA", raising=False)
    odd = tiny_bert(hidden_size=30, num_attention_heads=3, intermediate_size=64)  # 30 is no multiple of 4
    batch = {name: torch.from_numpy(array) for name, array in random_batch([40], 100).items()}
    bundle = open_bundle(write_tiny_bundle(tmp_path, odd))
    ov.save_model(
        write_ir(odd, quantize_linears(odd, [batch], skip={"qa_outputs"}, weight_bits=weight_bits)),
        bundle.model_xml,
        compress_to_fp16=False,
    )
    bundle = replace(bundle, quantization={"precision": "int8", "weight_bits": weight_bits})
    monkeypatch.setattr(cpu, "flags", lambda: flags)
    compiled = compile_bundle(
        bundle, QUESTION_ANSWERING, read_plain_graph(bundle, QUESTION_ANSWERING), None, LengthConfig.full(3), F32
    )
    assert isinstance(compiled, ov.CompiledModel)
    products = [
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    assert any(precision in ("i8", "u8") for precision in products) == integers


def test_it_computes_in_floats_what_integers_would(
    model: BertForQuestionAnswering,
    quantized: Mapping[str, QuantizedLinear],
    int8_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: AVX2)
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")  # as on a CPU without AVX2
    runtime = LengthAdaptiveModel(replace(int8_bundle, quantization=EIGHT_BITS), ov_config=F32)
    fake, differences = fake_quantized(model, quantized), []
    for seed in range(12):
        batch = random_batch([20 + seed], 100, seed=seed)
        with torch.no_grad():
            expected = fake(**{name: torch.from_numpy(array) for name, array in batch.items()})
        differences.append(np.abs(runtime(**batch).start_logits - expected.start_logits.numpy()).max())
    # A value halfway between two steps may be rounded to either, which the logits of its whole sequence then show.
    assert np.median(differences) < 1e-4
    assert not is_fused(runtime.bundle)


def test_an_unreadable_graph_is_reported(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, tiny_bert()))
    bundle.model_xml.write_text("<net>")
    with pytest.raises(BundleCorruptError, match=r"openvino_model\.xml cannot be read as XML"):
        read_plain_graph(bundle, QUESTION_ANSWERING)
