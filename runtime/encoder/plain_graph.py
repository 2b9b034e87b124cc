"""A bundle's graph at full length, in the arithmetic that this CPU gets right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openvino as ov
from openvino import opset13 as opset

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.bundles.graph_file import check_graph_file
from dynamic_tinybert.runtime.common.errors import BundleFormatError, DynamicTinyBertError, InferenceError

from . import extension_library
from .gate import gate
from .graph_sizes import check_graph_sizes
from .graph_walk import producers
from .patterns import Product
from .task_graph import TaskGraph


def read_plain_graph(bundle: Bundle, task: TaskGraph) -> ov.Model:
    """The graph as the exporter wrote it, or with weights as floats where their products would saturate.

    Args:
        bundle: Whose graph.
        task: The bundle's, which says what the head must look like.

    Raises:
        ExtensionError: The C++ extension is missing or was built for another OpenVINO.
        InferenceError: OpenVINO cannot read it.
        BundleError: It is not the graph that the bundle describes, or of no exporter.
    """
    check_graph_file(bundle.model_xml, bundle.model_xml.with_suffix(".bin"))
    try:
        with gate:
            model = extension_library.core().read_model(bundle.model_xml)
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO {ov.__version__} cannot read {bundle.model_xml}: {error}") from error
    check_graph_sizes(model, bundle, task)
    if computed_in_floats(bundle):
        with rewriting(bundle):
            give_float_weights(model)
    return model


@contextmanager
def rewriting(bundle: Bundle) -> Iterator[None]:
    """Turn what goes wrong in rewriting a bundle's graph, which may be anyone's, into an error that says so.

    Raises:
        BundleFormatError: Nodes are not connected, or constants not shaped, as the exporter writes them.
        InferenceError: OpenVINO refused a node.
    """
    try:
        yield
    except DynamicTinyBertError:
        raise
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO refused the graph of {bundle.path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleFormatError(
            f"the graph of {bundle.path} is not as an exporter of bundles writes it ({error!r}); "
            "export the checkpoint again"
        ) from error


def computed_in_floats(bundle: Bundle) -> bool:
    """Whether a bundle's INT8 products are OpenVINO's here, which would saturate, so that floats take their place.

    That is so on CPUs without AVX2 only: on all others the graph is fused, and our own products are exact.
    """
    return products_saturate(bundle) and not extension_library.worth_fusing()


def products_saturate(bundle: Bundle) -> bool:
    """Whether OpenVINO's INT8 products of a bundle's weights may saturate here: those of 8 bits, without VNNI."""
    return bundle.quantization.get("weight_bits") == 8 and cpu.int8_products_saturate()


def give_float_weights(model: ov.Model) -> None:
    """Put the values of INT8 weights in their place, so that the CPU plugin multiplies floats.

    Activations are still rounded to 256 levels, and f32 holds sums of products of 8 bits exactly enough: the graph
    computes what integers would. Without VNNI, OpenVINO 2026.4 is no slower so, and its integers saturate.

    Args:
        model: A graph as the exporter writes it, changed in place: weights are `Multiply(Convert(int8 [out, in]),
            scale [out, 1])`. Word embeddings stay INT8: no product reads them.
    """
    for node in model.get_ordered_ops():
        product = Product.of(node)
        if product is not None and product.scale is not None:
            (matmul, _), values = producers(node), product.weight * product.scale
            matmul.input(1).replace_source_output(opset.constant(values).output(0))
