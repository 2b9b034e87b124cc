"""Compile a bundle's graph with token selection, in the form that is fastest on this CPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import openvino as ov

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import InferenceError
from dynamic_tinybert.runtime.length_config import LengthConfig

from . import extension_library
from .graph import with_selection
from .joined_graph import JoinedGraphRequests, as_joined, forget_programs
from .joined_ops import join_ops
from .plain_graph import products_saturate, rewriting
from .request_threads import request_threads
from .scorer import LayerSignificance
from .task_graph import TaskGraph

LENGTH_MULTIPLE = 8
"""Input lengths are padded up to a multiple of this, because OpenVINO prepares kernels for each new length."""


def compile_bundle(
    bundle: Bundle,
    task: TaskGraph,
    plain: ov.Model,
    scorers: Mapping[int, LayerSignificance] | None,
    config: LengthConfig | None,
    properties: Mapping[str, object],
) -> ov.CompiledModel | JoinedGraphRequests:
    """Compile a bundle's graph with token selection.

    Args:
        bundle: The bundle.
        task: The bundle's task.
        plain: The bundle's graph, from `read_plain_graph`; not changed.
        scorers: Learnt significance by layer; None for attention significance.
        config: The length configuration; None makes it an input of the graph.
        properties: OpenVINO properties by name.

    Raises:
        BundleFormatError: The graph is not as the exporter writes it.
        InferenceError: OpenVINO could not compile it.
    """
    return compile_graph(selecting_graph(bundle, task, plain, scorers, config), properties)


def compile_graph(graph: ov.Model, properties: Mapping[str, object]) -> ov.CompiledModel | JoinedGraphRequests:
    """Compile a graph for this CPU; one that becomes a single joined node runs without OpenVINO's CPU plugin.

    Args:
        graph: The graph, which is changed.
        properties: OpenVINO properties by name.

    Raises:
        InferenceError: OpenVINO could not compile it.
    """
    try:
        join_ops(graph)
        if (joined := as_joined(graph)) is not None and (threads := request_threads(properties)) is not None:
            return JoinedGraphRequests(joined, *threads)
        forget_programs(graph)
        return extension_library.core().compile_model(graph, "CPU", properties)
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO could not compile the graph with {properties}: {error}") from error


def selecting_graph(
    bundle: Bundle,
    task: TaskGraph,
    plain: ov.Model,
    scorers: Mapping[int, LayerSignificance] | None,
    config: LengthConfig | None,
    *,
    portable: bool = False,
    separate_after: Collection[int] = (),
) -> ov.Model:
    """A bundle's graph with token selection, in the form that is fastest on this CPU; arguments as above.

    Args:
        bundle: The bundle.
        task: Its task.
        plain: Its graph.
        scorers: Of its layers.
        config: A configuration, or None.
        portable: The graph will be stored, and may run on another CPU; see `fuse`.
        separate_after: Layers whose results are read by other nodes than the next layer; see `fuse`.

    Raises:
        BundleFormatError: The graph is not as the exporter writes it.
        InferenceError: OpenVINO refused a node.
    """
    with rewriting(bundle):
        return with_selection(
            plain,
            config,
            task=task,
            num_layers=bundle.shape.num_layers,
            num_heads=bundle.num_attention_heads,
            scorers=scorers,
            multiple=kept_multiple(bundle),
            fused=is_fused(bundle),
            float_weights=products_saturate(bundle),
            portable=portable,
            separate_after=separate_after,
        )


def is_fused(bundle: Bundle) -> bool:
    """Whether `fuse` makes a bundle's graph faster on this CPU: an INT8 graph on any CPU with AVX2."""
    return bundle.quantization["precision"] == "int8" and extension_library.worth_fusing()


def float_precision(bundle: Bundle, task: TaskGraph) -> str | None:
    """The default precision of what is not INT8, where it must be this one; else None.

    Of a fused graph whose head reads one token, only that head is not INT8: it costs nothing in f32, and bfloat16 would
    round its logits to three digits.
    """
    return "f32" if task.first_token_only and is_fused(bundle) else None


def kept_multiple(bundle: Bundle) -> int:
    """The multiple to which numbers of kept tokens are padded.

    It is 1 if none of the nodes that follow a selection has to prepare kernels for each new length.
    """
    return 1 if is_fused(bundle) and not bundle.quantization.get("fp32_linears") else LENGTH_MULTIPLE
