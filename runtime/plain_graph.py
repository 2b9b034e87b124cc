"""A bundle's graph at full length, in the arithmetic that this CPU gets right."""

from __future__ import annotations

import openvino as ov
from openvino import opset13 as opset

from . import cpu, ops
from .bundle import Bundle
from .errors import InferenceError
from .patterns import Product, producers


def read_plain_graph(bundle: Bundle) -> ov.Model:
    """The graph as the exporter wrote it, or with weights as floats where their products would saturate.

    Raises:
        ExtensionError: The C++ extension is missing or was built for another OpenVINO.
        InferenceError: OpenVINO cannot read it.
    """
    try:
        model = ops.core().read_model(bundle.model_xml)
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO {ov.__version__} cannot read {bundle.model_xml}: {error}") from error
    if computed_in_floats(bundle):
        give_float_weights(model)
    return model


def computed_in_floats(bundle: Bundle) -> bool:
    """Whether a bundle's INT8 products are OpenVINO's here, which would saturate, so that floats take their place.

    That is so on CPUs without AVX2 only: on all others the graph is fused, and our own products are exact.
    """
    is_8_bit = bundle.quantization.get("weight_bits") == 8
    return is_8_bit and not ops.worth_fusing() and cpu.int8_products_saturate()


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
