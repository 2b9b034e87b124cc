"""Read the inputs of scorers, and the outputs that their targets come from, off a bundle's graph at full length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from openvino import opset13

from dynamic_tinybert.modeling.tasks import model_task
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import TokenSequence, stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.cpu_quota import thread_properties
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE, is_fused
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.encoder.graph import with_selection
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.plain_graph import products_saturate, read_plain_graph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks import task_named


@dataclass(frozen=True)
class States:
    """The graph's results for a batch of windows.

    Attributes:
        by_layer: For each requested layer, its states after attention's LayerNorm, float32 [B, L, H].
        inputs: The model's inputs, int64 [B, L] by name.
        outputs: The outputs of the task's head, and the further tensors that its targets need, float32 by name.
        protected: 1 for tokens that no layer drops by learnt significance, else 0, float32 [B, L].
        real: 0 for padding, else 1, float32 [B, L].
    """

    by_layer: Mapping[int, npt.NDArray[np.float32]]
    inputs: Mapping[str, npt.NDArray[np.int64]]
    outputs: Mapping[str, npt.NDArray[np.float32]]
    protected: npt.NDArray[np.float32]
    real: npt.NDArray[np.float32]


class StateReader:
    """A bundle's graph, compiled with the states of some layers as additional outputs."""

    def __init__(self, bundle: Bundle, layers: Sequence[int]) -> None:
        """Compile the graph of a bundle so that it also outputs the states of `layers`."""
        num_layers, task = bundle.shape.num_layers, task_named(bundle.task)
        target_nodes = model_task(bundle.task).target_nodes(num_layers)
        plain = read_plain_graph(bundle, task)
        nodes = NamedNodes(plain)
        wanted = {
            _PROTECTED: task.protected(nodes),
            **{_state(layer): nodes[f"layer.{layer}.attention.output"].output(0) for layer in layers},
            **{name: nodes[name].output(0) for name in target_nodes},
        }
        # Before fusion, which would join layers whose states nothing reads.
        plain.add_results([opset13.result(output, name=_RESULT + name) for name, output in wanted.items()])
        model = with_selection(
            plain,
            LengthConfig.full(num_layers),
            task=task,
            num_layers=num_layers,
            num_heads=bundle.num_attention_heads,
            fused=is_fused(bundle) and not target_nodes,  # fusion takes the nodes between linear layers
            float_weights=products_saturate(bundle),
        )
        for result in model.get_results():
            if (name := result.get_friendly_name()).startswith(_RESULT):
                result.input_value(0).get_tensor().add_names({name.removeprefix(_RESULT)})
        config = {
            "INFERENCE_PRECISION_HINT": cpu.best_float_precision(),
            "PERFORMANCE_HINT": "LATENCY",
            **thread_properties(),
        }
        self._graph = CompiledGraph(partial(extension_library.core().compile_model, model, "CPU", config))
        self._layers = layers
        self._outputs = (*task.output_names, *target_nodes)

    def __call__(self, windows: Sequence[TokenSequence]) -> States:
        """Run one batch of windows."""
        inputs = stack(windows, multiple=LENGTH_MULTIPLE)  # OpenVINO prepares kernels for each new length
        outputs = self._graph.infer(inputs)
        return States(
            by_layer={layer: outputs[_state(layer)] for layer in self._layers},
            inputs=inputs,
            outputs={name: outputs[name] for name in self._outputs},
            protected=outputs[_PROTECTED],
            real=inputs["attention_mask"].astype(np.float32),
        )


_PROTECTED = "protected"
_RESULT = "result."


def _state(layer: int) -> str:
    return f"state.{layer}"
