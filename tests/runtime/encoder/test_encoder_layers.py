from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops
from dynamic_tinybert.runtime.encoder.eight_bits import EightBitProduct, PackedLinears, pack
from dynamic_tinybert.runtime.encoder.layer_op import encoder_layers

Array = npt.NDArray[Any]
EPSILON = 1e-12
WIDTH, INNER, HEADS = 48, 100, 4


def product(seed: int, width: int, depth: int, *, quantizes: bool = True) -> EightBitProduct:
    generator = np.random.default_rng(seed)
    return EightBitProduct(
        weight=generator.integers(-127, 128, (width, depth), np.int8),
        scale=generator.uniform(0.5, 1.5, width).astype(np.float32) / np.float32(4000 * depth**0.5),
        bias=generator.normal(0, 0.5, width).astype(np.float32),
        inv_scale=generator.uniform(40, 80, depth).astype(np.float32) if quantizes else None,
        zero_point=float(generator.integers(100, 156)),
    )


@dataclass(frozen=True)
class Part:
    """A chain of products with its constants."""

    products: tuple[EightBitProduct, ...]
    packed: PackedLinears

    @property
    def widths(self) -> list[int]:
        return [len(own.weight) for own in self.products]

    @property
    def zero_points(self) -> list[float]:
        return [own.zero_point for own in self.products]


def part(*products: EightBitProduct, normalizes: bool, portable: bool) -> Part:
    normalization = np.random.default_rng(len(products)).normal((1, 0), 0.3, (WIDTH, 2)).astype(np.float32).T
    return Part(products, pack(products, list(normalization) if normalizes else (), portable=portable))


def parts_of(seed: int, kind: str, *, portable: bool = False) -> list[Part]:
    if kind == "feed forward":
        both = product(seed, INNER, WIDTH), product(seed + 1, WIDTH, INNER)
        return [part(*both, normalizes=True, portable=portable)]
    return [
        part(product(seed, 3 * WIDTH, WIDTH), normalizes=False, portable=portable),
        part(product(seed + 1, WIDTH, WIDTH, quantizes=False), normalizes=True, portable=portable),
    ]


def inv_scale(half: int) -> float:
    return 50.0 + half + 1 / 3


def inputs_of_graph() -> tuple[ov.Node, ov.Node]:
    return opset15.parameter([-1, -1, WIDTH], np.float32), opset15.parameter([-1, -1], np.float32)


def separate(kinds: list[str]) -> ov.Model:
    """What the op stands for."""
    state, mask = inputs_of_graph()
    current = state.output(0)
    for half, kind in enumerate(kinds):
        parts = parts_of(half, kind)
        last = parts[-1]
        options: dict[str, Any] = {"widths": last.widths, "zero_points": last.zero_points, "epsilon": EPSILON}
        if kind == "feed forward":
            current = ops.quantized_linears(current, last.packed, **options).output(0)
            continue
        projected = ops.quantized_linears(
            current, parts[0].packed, widths=parts[0].widths, zero_points=parts[0].zero_points
        ).output(0)
        context = ops.attention(
            projected,
            mask.output(0),
            HEADS,
            int16=True,
            inv_scale=inv_scale(half),
            zero_point=last.zero_points[0],
        )
        current = ops.quantized_linears(context, last.packed, **options, residual=current).output(0)
    return ov.Model([current], [state, mask])


def arguments(kinds: list[str], *, portable: bool = False) -> dict[str, Any]:
    halves = [parts_of(half, kind, portable=portable) for half, kind in enumerate(kinds)]
    parts = [own for half in halves for own in half]
    return {
        "constants": [opset15.constant(own.packed.constants, shared_memory=True).output(0) for own in parts],
        "inner_widths": [INNER if kind == "feed forward" else 0 for kind in kinds],
        "heads": HEADS,
        "inv_scales": [0.0 if kind == "feed forward" else inv_scale(half) for half, kind in enumerate(kinds)],
        "zero_points": [zero for own in parts for zero in own.zero_points],
        "epsilons": [EPSILON for _ in kinds],
        "isa": parts[0].packed.isa,
        "weight_bytes": [size for own in parts for size in own.packed.weight_bytes],
    }


def joined(kinds: list[str], *, portable: bool = False) -> ov.Model:
    state, mask = inputs_of_graph()
    node = encoder_layers(state.output(0), mask.output(0), **arguments(kinds, portable=portable))
    return ov.Model([node.output(0)], [state, mask])


def compiled(model: ov.Model, threads: int = 1) -> ov.CompiledModel:
    return extension_library.core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})


def random_inputs(batch: int, length: int) -> list[Array]:
    """Real tokens everywhere in the first sequence; the others have padding, also between real tokens."""
    generator = np.random.default_rng(length)
    mask = np.where(generator.random((batch, length)) < 0.3, -10000, 0).astype(np.float32)
    mask[0] = 0
    return [generator.standard_normal((batch, length, WIDTH), np.float32), mask]


KINDS = [
    ["attention"],
    ["feed forward", "attention"],
    ["attention", "feed forward", "attention", "feed forward"],
    ["feed forward", "feed forward", "attention", "attention"],
]


@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_as_separate_ops(isa: str, kinds: list[str], threads: int) -> None:
    one, many = compiled(joined(kinds), threads), compiled(separate(kinds), threads)
    for batch, length in ((1, 1), (1, 23), (3, 40), (2, 1), (1, 171), (1, 5)):
        inputs = random_inputs(batch, length)
        np.testing.assert_array_equal(one(inputs)[0], many(inputs)[0])
    assert one(random_inputs(1, 0))[0].shape == (1, 0, WIDTH)


@pytest.mark.parametrize("kinds", KINDS[:3], ids=" ".join)
def test_weights_that_the_op_packs_give_the_same_bits(isa: str, kinds: list[str], tmp_path: Path) -> None:
    """Also if several threads make the first call."""
    ov.save_model(joined(kinds, portable=True), tmp_path / "model.xml", compress_to_fp16=False)
    assert 'isa="any"' in (tmp_path / "model.xml").read_text()
    core, inputs = extension_library.core(), random_inputs(2, 30)
    loaded = core.compile_model(core.read_model(tmp_path / "model.xml"), "CPU", {"NUM_STREAMS": 2})
    expected = compiled(separate(kinds))(inputs)[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: loaded.create_infer_request().infer(inputs)[0], range(8)):
            np.testing.assert_array_equal(found, expected)


def test_nan_is_not_hidden(isa: str) -> None:
    inputs = random_inputs(1, 40)
    model = compiled(joined(["feed forward", "attention"]), 2)
    inputs[0][0, 5, 7] = np.nan
    assert np.isnan(model(inputs)[0][0, 5]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 5}, "states of 48 numbers for 5 heads; give a multiple of their number"),
        ({"heads": 0}, "states of 48 numbers for 0 heads"),
        ({"heads": 2**40}, "heads is 1099511627776; at most 65536 is allowed"),
        ({"inner_widths": [0, -4]}, "inner width -4 of half 1; give 0 for an attention half"),
        ({"inner_widths": [0, 99]}, "width 99 of product 0 must be at least 1 and, before another"),
        ({"inner_widths": [0]}, "1 inner_widths, 4 zero_points and 4 weight_bytes; give one for each half"),
        ({"epsilons": [0.0] * 3, "inv_scales": [1.0] * 3}, r"f32 of shape \[2,3\], .* give a Constant, f32 \[2, 2\]"),
        ({"inner_widths": [0, 0]}, "inv_scale 0 of an attention half; it must be above 0"),
        ({"inner_widths": [INNER, INNER]}, "the constants have shape"),
        ({"inv_scales": [-1.0, 0.0]}, "inv_scale -1 of an attention half"),
        ({"zero_points": [0.0, 256.0, 0.0, 0.0]}, "zero point 256 is outside"),
        ({"epsilons": [0.0, -1.0]}, "epsilon -1 must be at least 0"),
        ({"isa": "neon"}, "the weights are packed for 'neon', which this CPU cannot run"),
        ({"isa": "any"}, "without being packed they must take|need"),
        ({"weight_bytes": [64, 64, 64, 64]}, "the weights of product 0 take 64 bytes"),
        ({"constants": 2}, "5 inputs for 2 halves; give state, mask, numbers and the constants of each half"),
        ({"constants": 4}, "7 inputs where 2 halves need 6"),
        ({"constants": 0}, "3 inputs; give state, mask, numbers and the constants of each half"),
        ({"mask": [1, 5]}, r"the state has shape \[1,4,48\] and the mask \[1,5\]"),
        ({"state": [1, 4, -1]}, r"give \[B, L, H\], H known"),
        ({"state": [4, 48]}, r"the state has shape \[4,48\]"),
        ({"kind": np.float64}, "input 0 is of type f64; convert it to f32"),
    ],
    ids=str,
)
def test_refuses_wrong_inputs_when_the_graph_is_built(changed: dict[str, Any], message: str) -> None:
    given = arguments(["attention", "feed forward"])
    if "constants" in changed:
        given["constants"] = [*given["constants"], given["constants"][0]][: changed["constants"]]
    given |= {name: value for name, value in changed.items() if name in given and name != "constants"}
    state = opset15.parameter(changed.get("state", [1, 4, WIDTH]), changed.get("kind", np.float32)).output(0)
    mask = opset15.parameter(changed.get("mask", [1, 4]), np.float32).output(0)
    with pytest.raises(RuntimeError, match=f"EncoderLayers: .*({message})"):
        encoder_layers(state, mask, **given)


def test_the_op_packs_weights_of_a_constant_only() -> None:
    given = arguments(["attention"], portable=True)
    sizes = [constant.get_shape()[0] for constant in given["constants"]]
    given["constants"] = [opset15.parameter([size], np.int8).output(0) for size in sizes]
    state, mask = (node.output(0) for node in inputs_of_graph())
    with pytest.raises(RuntimeError, match="input 3 is computed by Parameter; weights can be packed here only"):
        encoder_layers(state, mask, **given)


def test_lengths_that_do_not_fit_are_refused_at_the_call() -> None:
    request = compiled(joined(["attention"])).create_infer_request()
    state, mask = random_inputs(1, 12)
    request.start_async([state, mask[:, :7]])  # with one thread, infer() loses the error
    with pytest.raises(RuntimeError, match=r"EncoderLayers: "):
        request.wait()
