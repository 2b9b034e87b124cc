"""Which weights a bundle's graph multiplies, by bundle and CPU; tests/export/test_ir.py compares what comes out."""

from dataclasses import replace
from pathlib import Path

import openvino as ov
import pytest
import torch

from dynamic_tinybert.calibration import quantize_linears
from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.errors import InferenceError
from dynamic_tinybert.runtime.patterns import producers
from dynamic_tinybert.runtime.plain_graph import read_plain_graph

from tiny import tiny_bert, write_tiny_bundle

AVX2 = frozenset({"avx2", "avx512f", "avx512bw"})


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = tiny_bert()
    batch = {name: torch.from_numpy(array) for name, array in random_batch([40], 100, seed=0).items()}
    bundle = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle"), model))
    ov.save_model(
        write_ir(model, quantize_linears(model, [batch], skip={"qa_outputs"})),
        bundle.model_xml,
        compress_to_fp16=False,
    )
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
def test_weights_are_floats_where_products_saturate(
    int8_bundle: Bundle, flags: frozenset[str], weight_bits: int, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: flags)
    bundle = replace(int8_bundle, quantization={"precision": "int8", "weight_bits": weight_bits})
    assert weights(read_plain_graph(bundle)) == expected


def test_it_answers_with_float_weights_at_a_length_configuration(
    int8_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: AVX2)
    bundle = replace(int8_bundle, quantization={"precision": "int8", "weight_bits": 8})
    output = LengthAdaptiveModel(bundle)(**random_batch([33], 100, seed=1), length_config=(0.8, 0.6, 0.4))
    assert [len(positions[0]) for positions in output.kept_positions.values()] == [32, 24, 16]
    assert output.start_logits.std() > 0


def test_an_unreadable_graph_is_reported(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, tiny_bert()))
    bundle.model_xml.write_text("<net>")
    with pytest.raises(InferenceError, match=r"cannot read .*openvino_model\.xml"):
        read_plain_graph(bundle)
