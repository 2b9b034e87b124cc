"""Compile a bundle's graph with selection, in the form that is fastest here."""

from __future__ import annotations

from collections.abc import Mapping

import openvino as ov

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import InferenceError
from dynamic_tinybert.runtime.length_config import LengthConfig

from . import extension_library
from .graph import with_selection
from .plain_graph import products_saturate, rewriting
from .scorer import LayerSignificance
from .task_graph import TaskGraph

LENGTH_MULTIPLE = 8
"""Lengths are padded up to a multiple of this: OpenVINO prepares kernels anew for each length it meets."""


def compile_bundle(
    bundle: Bundle,
    task: TaskGraph,
    plain: ov.Model,
    scorers: Mapping[int, LayerSignificance] | None,
    config: LengthConfig | None,
    properties: Mapping[str, object],
) -> ov.CompiledModel:
    """Compile a bundle's graph with selection.

    Args:
        bundle: Where `plain` is from.
        task: The bundle's.
        plain: What `read_plain_graph` gives; it stays as it is.
        scorers: Of its layers; None for attention significance.
        config: None makes the configuration an input of the graph.
        properties: OpenVINO's, by their own names.

    Raises:
        BundleFormatError: The graph is not as an exporter writes it.
        InferenceError: OpenVINO could not.
    """
    with rewriting(bundle):
        graph = with_selection(
            plain,
            config,
            task=task,
            num_layers=bundle.shape.num_layers,
            num_heads=bundle.num_attention_heads,
            scorers=scorers,
            multiple=kept_multiple(bundle),
            fused=is_fused(bundle),
            float_weights=products_saturate(bundle),
        )
    try:
        return extension_library.core().compile_model(graph, "CPU", properties)
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO could not compile the graph with {properties}: {error}") from error


def is_fused(bundle: Bundle) -> bool:
    """Whether a bundle's graph gains from `fuse` here: an INT8 one on any CPU with AVX2."""
    return bundle.quantization["precision"] == "int8" and extension_library.worth_fusing()


def kept_multiple(bundle: Bundle) -> int:
    """Kept lengths are padded up to a multiple of this: 1 where no node behind a selection prepares kernels for one."""
    return 1 if is_fused(bundle) and not bundle.quantization.get("fp32_linears") else LENGTH_MULTIPLE
