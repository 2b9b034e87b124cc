"""What is refused of a graph before OpenVINO reads it, and what of one that does not go with its config.json."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
