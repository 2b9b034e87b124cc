"""Read a bundle's graph, without token selection, in a form whose products do not saturate on this CPU."""

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
    """The graph as the exporter wrote it, or with float weights where products of INT8 weights would saturate.

    Args:
        bundle: The bundle.
        task: The bundle's task, which checks the head.

    Raises:
        ExtensionError: The C++ extension is missing or was built for another OpenVINO.
        InferenceError: OpenVINO cannot read the graph.
        BundleError: The graph does not match the bundle's manifest and sizes, or is not one that the exporter writes.
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
    """Turn any error in rewriting a bundle's graph, which may come from anyone, into one of this package's errors.

    Raises:
        BundleFormatError: The graph's nodes or constants are not as the exporter writes them.
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
            f"the graph of {bundle.path} is not as the exporter writes it ({error!r}); export the checkpoint again"
        ) from error


def computed_in_floats(bundle: Bundle) -> bool:
    """Whether a bundle's INT8 products are computed in floats, because OpenVINO's would saturate on this CPU.

    This is so only on CPUs without AVX2: on all others the graph is fused, and our own products are exact.
    """
    return products_saturate(bundle) and not extension_library.worth_fusing()


def products_saturate(bundle: Bundle) -> bool:
    """Whether OpenVINO's INT8 products may saturate: with weights of 8 bits, on a CPU without VNNI."""
    return bundle.quantization.get("weight_bits") == 8 and cpu.int8_products_saturate()


def give_float_weights(model: ov.Model) -> None:
    """Replace INT8 weights by their values as floats, so that the CPU plugin multiplies floats.

    Activations are still rounded to 256 levels, and float32 represents sums of 8-bit products precisely enough to give
    the results of exact integers. Without VNNI, OpenVINO 2026.4 is no slower this way, and its integer products
    saturate.

    Args:
        model: A graph as the exporter writes it, changed in place: weights are `Multiply(Convert(int8 [out, in]),
            scale [out, 1])`. Word embeddings stay INT8: no product reads them.
    """
    for node in model.get_ordered_ops():
        product = Product.of(node)
        if product is not None and product.scale is not None:
            (matmul, _), values = producers(node), product.weight * product.scale
            matmul.input(1).replace_source_output(opset.constant(values).output(0))
