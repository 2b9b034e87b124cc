from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, fusion
from dynamic_tinybert.runtime.encoder.joined_layers import join_layers

from support.embedded_graphs import embedded, types

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def compiled(model: ov.Model, threads: int = 1) -> ov.CompiledModel:
    return extension_library.core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})


@pytest.fixture
def separate_graph(fused: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], ov.Model]:
    """Makes the graph of a length configuration without joining its layers."""

    def make(config: Any) -> ov.Model:  # noqa: ANN401
        with monkeypatch.context() as patch:
            patch.setattr(fusion, "join_layers", lambda *_: None)
            return embedded().specialised_graph(config)

    return make


@pytest.mark.parametrize(
    ("config", "joined", "left"),
    [
        ("full", 1, 0),
        # Layer 0, then to the end of layer 2, whose states are needed, and layers 3 and 4 to where they select.
        ([0.5, 0.5, 0.5, 0.3, 0.2, 0.2], 5, 1),
        ([1, 1, 1, 0.5, 0.5, 0.5], 3, 0),
    ],
)
def test_layers_that_select_nothing_are_joined(
    separate_graph: Callable[[Any], ov.Model],
    config: Any,  # noqa: ANN401
    joined: int,
    left: int,
) -> None:
    graph, before = embedded().specialised_graph(config), separate_graph(config)
    assert types(before)["QuantizedLinears"] == 3 * 6
    found = types(graph)
    assert found["Attention"] == 0
    assert (found["EncoderLayers"], found["QuantizedLinears"]) == (joined, left)
    ids = np.random.default_rng(0).integers(1000, 20000, (2, 61))
    ids[:, 0] = 101
    inputs = {
        "input_ids": ids,
        "attention_mask": (np.arange(61) < [[61], [40]]).astype(np.int64),
        "token_type_ids": np.broadcast_to(np.arange(61) > 12, ids.shape).astype(np.int64),
    }
    for threads in (1, 2):
        one, many = compiled(graph, threads)(inputs), compiled(before, threads)(inputs)
        for name in ("start_logits", "end_logits"):
            np.testing.assert_array_equal(one[name], many[name])


def test_states_that_something_else_reads_are_kept(separate_graph: Callable[[Any], ov.Model]) -> None:
    graph = separate_graph("full")
    state = next(node for node in graph.get_ordered_ops() if node.get_friendly_name() == "layer.2.output")
    graph.add_results([opset15.result(state, name="seen")])
    expected = compiled(graph)(inputs := {name: np.ones((1, 9), np.int64) for name in INPUTS})
    join_layers(graph, 6)
    assert (types(graph)["EncoderLayers"], types(graph)["QuantizedLinears"]) == (2, 0)
    for a, b in zip(expected.values(), compiled(graph)(inputs).values(), strict=True):
        np.testing.assert_array_equal(a, b)
