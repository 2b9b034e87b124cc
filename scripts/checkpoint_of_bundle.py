"""Convert a bundle to a PyTorch checkpoint, to train its model further when the original checkpoint is not available.

    python scripts/checkpoint_of_bundle.py BUNDLE OUTPUT

The scorers and the tokenizer are copied. INT8 weights are dequantised: OUTPUT computes what the bundle's `full`
computes, except for the rounding of activations; that is not exactly what the exported checkpoint computed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from transformers import BertConfig, BertForQuestionAnswering

from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.files import CONFIG, MODEL_XML, OPTIONAL_TOKENIZER_FILES, SCORERS, TOKENIZER
from dynamic_tinybert.runtime.common.publish import publishing

Array = npt.NDArray[np.float32]


def main(bundle: Path, output: Path) -> None:
    """Write a checkpoint that `train` and `export` accept."""
    open_bundle(bundle)  # checks the files
    model = BertForQuestionAnswering(BertConfig.from_pretrained(bundle / CONFIG))
    graph = ov.Core().read_model(bundle / MODEL_XML)
    weights = weights_of(graph, model.config.num_hidden_layers)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    with publishing(output) as folder:
        model.save_pretrained(folder)
        for name in (SCORERS, TOKENIZER, *OPTIONAL_TOKENIZER_FILES):
            if (bundle / name).exists():
                shutil.copy(bundle / name, folder / name)


def weights_of(graph: ov.Model, num_layers: int) -> dict[str, Array]:
    """The weights in an FP32 or INT8 graph of `export.ir.write_ir`, by their names in BertForQuestionAnswering."""
    named = {node.get_friendly_name(): node for node in graph.get_ops()}
    normed = named["embeddings.output"]
    words_and_segments, positions = _inputs(_before(normed)[2])
    words, segments = _inputs(words_and_segments)
    prefix = "bert.embeddings"
    weights = {
        f"{prefix}.word_embeddings.weight": _table(words),
        f"{prefix}.position_embeddings.weight": _table(positions),
        f"{prefix}.token_type_embeddings.weight": _table(segments),
        **_layer_norm(f"{prefix}.LayerNorm", normed),
    }
    for i in range(num_layers):
        prefix, name = f"bert.encoder.layer.{i}", f"layer.{i}"
        for part in ("query", "key", "value"):
            weights |= _linear(f"{prefix}.attention.self.{part}", named[f"{name}.{part}"])
        attended, output = named[f"{name}.attention.output"], named[f"{name}.output"]
        weights |= _linear(f"{prefix}.attention.output.dense", _inputs(named[f"{name}.attention.residual"])[0])
        weights |= _layer_norm(f"{prefix}.attention.output.LayerNorm", attended)
        outer = _before(output)[3]
        gelu = next(node for node in _before(outer) if node.get_type_name() == "Gelu")
        weights |= _linear(f"{prefix}.intermediate.dense", _inputs(gelu)[0])
        weights |= _linear(f"{prefix}.output.dense", outer)
        weights |= _layer_norm(f"{prefix}.output.LayerNorm", output)
    return weights | _linear("qa_outputs", named["logits"])


def _linear(name: str, add: ov.Node) -> dict[str, Array]:
    """Weight and bias of `x @ weight.T + bias`, without SmoothQuant's factors."""
    product, bias = _inputs(add)
    activation, weight = _inputs(product)
    values = _table(weight)
    if activation.get_type_name() == "FakeQuantize":
        scaled = _inputs(activation)[0]
        if scaled.get_type_name() == "Multiply":
            values = values * _constant(_inputs(scaled)[1])
    return {f"{name}.weight": values, f"{name}.bias": _constant(bias).ravel()}


def _layer_norm(name: str, add: ov.Node) -> dict[str, Array]:
    scaled, bias = _inputs(add)
    return {f"{name}.weight": _constant(_inputs(scaled)[1]), f"{name}.bias": _constant(bias)}


def _table(node: ov.Node) -> Array:
    """An embedding table or a weight: a constant, or INT8 values times scales."""
    if node.get_type_name() == "Multiply":
        values, scale = map(_table, _inputs(node))
        return values * scale
    return _constant(node) if node.get_type_name() == "Constant" else _table(_inputs(node)[0])


def _constant(node: ov.Node) -> Array:
    return np.array(node.data, dtype=np.float32)


def _inputs(node: ov.Node) -> list[ov.Node]:
    return [value.get_node() for value in node.input_values()]


def _before(node: ov.Node) -> list[ov.Node]:
    """The producer of the first input, the producer of that one's first input, and so on."""
    chain = []
    while node.get_input_size():
        node = _inputs(node)[0]
        chain.append(node)
    return chain


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    main(**vars(parser.parse_args()))
