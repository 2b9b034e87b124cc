"""What is refused of a graph before OpenVINO reads it, and what of one that does not go with its config.json."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from dynamic_tinybert.runtime.bundles.graph_file import check_graph_file
from dynamic_tinybert.runtime.common.errors import BundleCorruptError, BundleError, BundleFormatError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from fuzzing.mutations import make_digests_right
from support.tiny import tiny_bert, write_tiny_bundle

XML, BIN = "openvino_model.xml", "openvino_model.bin"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", tiny_bert(num_hidden_layers=2))


def put(pattern: str, by: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        changed, count = re.subn(pattern, by, text, count=1)
        assert count
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (put("</net>", ""), BundleCorruptError, "cannot be read as XML"),
        (put("<net ", '<!DOCTYPE net [<!ENTITY a "b">]><net '), BundleFormatError, "declares a document type"),
        (put('version="11"', 'version="12"'), BundleFormatError, "not an OpenVINO IR of version 10 or 11"),
        (put("<net ", "<not "), BundleCorruptError, "cannot be read as XML"),
        (put('type="Gelu" version="opset7"', 'type="If" version="opset8"'), BundleFormatError, "is a 'If' of 'opset8'"),
        (
            put('type="Gelu" version="opset7"', 'type="SelectTokens" version="dynamic_tinybert"'),
            BundleFormatError,
            "is a 'SelectTokens' of 'dynamic_tinybert', which is not allowed in bundles",
        ),
        (put('name="layer.1.query"', 'name="layer.0.query"'), BundleFormatError, "two nodes named 'layer.0.query'"),
        (put('element_type="f32"', 'element_type="string"'), BundleFormatError, "is of type 'string'"),
        (
            put('offset="[0-9]+"', 'offset="18446744073709551615"'),
            BundleCorruptError,
            "spans bytes 18446744073709551615",
        ),
        (put('offset="[0-9]+"', 'offset="-4"'), BundleFormatError, "not a non-negative integer: '-4'"),
        (
            put('shape="100, 32"', 'shape="100, 4611686018427387904"'),
            BundleFormatError,
            "does not fit its type f32 and shape",
        ),
    ],
)
def test_a_graph_of_no_exporter_is_refused(
    bundle: Path, change: Callable[[str], str], error: type[BundleError], message: str
) -> None:
    (bundle / XML).write_text(change((bundle / XML).read_text()))
    make_digests_right(bundle)
    with pytest.raises(error, match=re.escape(message)):
        LengthAdaptiveModel.from_pretrained(bundle)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_another_encoding_hides_no_document_type(bundle: Path, encoding: str) -> None:
    text = put("<net ", '<!DOCTYPE net [<!ENTITY a "b">]><net ')((bundle / XML).read_text())
    (bundle / XML).write_bytes(text.replace("utf-8", "utf-16").encode(encoding))
    make_digests_right(bundle)
    with pytest.raises(BundleFormatError, match="document type or entities, or is not UTF-8"):
        LengthAdaptiveModel.from_pretrained(bundle)


def test_constants_must_lie_within_the_weights(bundle: Path) -> None:
    check_graph_file(bundle / XML, bundle / BIN)
    content = (bundle / BIN).read_bytes()
    (bundle / BIN).write_bytes(content[:-1])
    with pytest.raises(BundleCorruptError, match=f"of a file of {len(content) - 1} bytes"):
        check_graph_file(bundle / XML, bundle / BIN)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "num_attention_heads",
            2,
            r"layer.0.attention of the graph is .* but config.json needs f32 \[\?, 2, \?, 16\]",
        ),
        ("num_hidden_layers", 1, "a node layer.1.output, but config.json states 1 layers"),
        ("num_hidden_layers", 3, "no node named 'layer.2.query'"),
        ("hidden_size", 64, r"embeddings.output of the graph .* needs f32 \[\?, \?, 64\]"),
        ("vocab_size", 101, r"the table of input_ids has shape \[100,32\], but config.json states 101 rows"),
        ("type_vocab_size", 3, r"the table of token_type_ids has shape \[2,32\], but config.json states 3 rows"),
        ("max_position_embeddings", 512, r"the table of positions has shape \[128,32\]"),
    ],
)
def test_a_graph_of_other_sizes_is_refused(bundle: Path, key: str, value: int, message: str) -> None:
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | {key: value}))
    manifest = json.loads((bundle / "dynamic_tinybert.json").read_text())
    layers = value if key == "num_hidden_layers" else 2
    manifest["length_configs"]["full"] |= {"keep_ratios": [1] * layers, "thresholds": [None] * layers}
    (bundle / "dynamic_tinybert.json").write_text(json.dumps(manifest))
    make_digests_right(bundle)
    with pytest.raises(BundleFormatError, match=message):
        LengthAdaptiveModel.from_pretrained(bundle)


Nodes = dict[str, ov.Node]


def rewritten(bundle: Path, change: Callable[[Nodes], None]) -> Path:
    """The bundle, of whose graph the nodes were changed."""
    model = ov.Core().read_model(bundle / XML)
    change({node.get_friendly_name(): node for node in model.get_ordered_ops()})
    model.validate_nodes_and_infer_types()
    ov.save_model(model, bundle / "other.xml", compress_to_fp16=False)
    for suffix in ("xml", "bin"):
        (bundle / f"other.{suffix}").replace(bundle / f"openvino_model.{suffix}")
    make_digests_right(bundle)
    return bundle


def put_after(node: ov.Node, replacement: Callable[[ov.Output], ov.Node]) -> None:
    readers = list(node.output(0).get_target_inputs())
    by = replacement(node.output(0)).output(0)
    for reader in readers:
        reader.replace_source_output(by)


def length_of(mask: ov.Output) -> ov.Output:
    return ops.gather(ops.shape_of(mask), [1], 0).output(0)


def computed_axis(nodes: Nodes) -> None:
    def gathered(mask: ov.Output) -> ov.Node:
        axis = ops.squeeze(ops.multiply(length_of(mask), np.int64([65536])), [0])
        return ops.reshape(ops.gather(mask, np.int64([0]), axis), ops.constant([-1, 4]), False)

    put_after(nodes["attention_mask"], gathered)


def batched(nodes: Nodes) -> None:
    put_after(nodes["layer.0.output"], lambda x: ops.gather(x, np.int64([[0]]), 1, batch_dims=1))


def computed_shape(nodes: Nodes) -> None:
    put_after(nodes["attention_mask"], lambda mask: ops.reshape(mask, ops.shape_of(mask), False))


def computed_order(nodes: Nodes) -> None:
    def transposed(state: ov.Output) -> ov.Node:
        length = length_of(nodes["attention_mask"].output(0))
        return ops.transpose(state, ops.multiply(length, np.int64([0, 1, 2])))

    put_after(nodes["layer.0.output"], transposed)


def far_index(nodes: Nodes) -> None:
    put_after(nodes["layer.0.output"], lambda x: ops.add(x, ops.gather(x, np.int64([9]), 1)))


def computed_index(nodes: Nodes) -> None:
    ids = nodes["input_ids"].output(0)
    gathers = [t for t in ids.get_target_inputs() if t.get_node().get_type_name() == "Gather"]
    far = ops.multiply(ids, np.int64([[1000]]))
    nodes["input_ids"].set_friendly_name("other")
    far.set_friendly_name("input_ids")
    for target in gathers:
        target.replace_source_output(far.output(0))


def other_axis(nodes: Nodes) -> None:
    (gather,) = (t.get_node() for t in nodes["token_type_ids"].output(0).get_target_inputs())
    gather.input(2).replace_source_output(ops.constant(np.int64(1)).output(0))
    put_after(gather, lambda x: ops.reshape(x, [-1, 1, 32], False))


def shorter_values(nodes: Nodes) -> None:
    """OpenVINO's attention then takes values from behind the end of what the caller gave."""
    product = nodes["layer.1.value"].input_value(0).get_node()
    first = ops.gather(product.input_value(0), np.int64([0]), 1)
    product.input(0).replace_source_output(first.output(0))


def longer_keys(nodes: Nodes) -> None:
    """Only if there is one token, there are keys for five."""
    product = nodes["layer.1.key"].input_value(0).get_node()
    more = ops.multiply(product.input_value(0), np.ones((1, 5, 1), np.float32))
    product.input(0).replace_source_output(more.output(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (computed_axis, "input 2 of the Gather .* must be a constant"),
        (batched, "must have batch_dims 0"),
        (computed_shape, "input 1 of the Reshape .* must be a constant"),
        (computed_order, "input 1 of the Transpose .* must be a constant"),
        (far_index, "gathers by indices that are computed or may be out of range"),
        (computed_index, "gathers by indices that are computed or may be out of range"),
        (other_axis, "gathers by indices that are computed or may be out of range"),
        (shorter_values, "queries, keys and values of layer 1 are not products of one state"),
        (longer_keys, "queries, keys and values of layer 1 are not products of one state"),
    ],
)
def test_what_could_read_out_of_bounds_is_refused(bundle: Path, change: Callable[[Nodes], None], message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        LengthAdaptiveModel.from_pretrained(rewritten(bundle, change))


@pytest.mark.parametrize(
    ("pattern", "by", "message"),
    [
        ('<port id="1"', '<port id="7"', "inputs of node .* are not numbered"),
        ('to-port="0"', 'to-port="00"', "ambiguous ids"),
        (r"(<edge [^>]*/>)", r"\1\1", "ambiguous ids"),
        ('<layer id="1"', '<layer id="0"', "ambiguous ids"),
    ],
)
def test_edges_that_could_be_read_otherwise_are_refused(bundle: Path, pattern: str, by: str, message: str) -> None:
    text = (bundle / XML).read_text()
    start = text.index("<input>") if "<port" in pattern else 0
    (bundle / XML).write_text(text[:start] + put(pattern, by)(text[start:]))
    with pytest.raises(BundleFormatError, match=message):
        check_graph_file(bundle / XML, bundle / BIN)


def test_a_graph_that_was_only_saved_again_is_taken(bundle: Path) -> None:
    LengthAdaptiveModel.from_pretrained(rewritten(bundle, lambda nodes: None))
