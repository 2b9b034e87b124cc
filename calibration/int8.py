"""INT8 weights and activation ranges of a model's Linear layers, by Intel Neural Compressor."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule
from tqdm import tqdm

from dynamic_tinybert.runtime.errors import CheckpointError, InvalidInputError

from .smoothing import insert_smoothing, readers_by_tensor

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A Linear layer in INT8, with u8 inputs and s8 weights.

    With ``q = clip(round(x * smoothing / activation_scale) + activation_zero_point, 0, 255)`` it computes
    ``y = (q - activation_zero_point) * activation_scale @ (weight * weight_scale[:, None]).T + bias``;
    the bias stays the layer's own, in FP32.

    Attributes:
        weight: int8, [out, in]. SmoothQuant has already divided its columns by `smoothing`.
        weight_scale: float32, [out]. Weights are symmetric: their zero point is 0.
        activation_scale: Step of the u8 input, one for the whole tensor.
        activation_zero_point: The u8 value, 0 to 255, that stands for 0.0.
        smoothing: float32, [in]: what each channel of the input is multiplied by before it is quantised, or
            None without SmoothQuant.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    activation_scale: float
    activation_zero_point: int
    smoothing: NDArray[np.float32] | None


def quantize_linears(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    smooth_alpha: float | None = 0.75,
    weight_bits: int = 8,
    skip: Collection[str] = (),
    progress: bool = True,
) -> dict[str, QuantizedLinear]:
    """Calibrate the Linear layers of `model` with INC's SmoothQuant and PT2E static quantisation.

    Activation ranges are INC's default, the moving average (constant 0.01) of the batches' minima and maxima: the
    first batch counts most, so it should be a typical one. Weights take one scale per output channel. Layers that
    read the same tensor (query, key and value of one layer) get the same smoothing, scale and zero point, so that
    one quantised input serves them all.

    Args:
        model: An FP32 module that `torch.export` accepts. It is copied, not changed.
        batches: Calibration inputs, each the keyword arguments of one call: tensors [1, length] without
            padding, which would count towards the ranges. Lengths may differ from batch to batch.
        smooth_alpha: How much of the activations' difficulty SmoothQuant moves to the weights, 0 to 1; None
            leaves SmoothQuant out.
        weight_bits: 8, or 7 for CPUs without VNNI, which add two u8·s8 products in 16 bits and saturate: the
            weights then lie within [-63, 63].
        skip: Names of Linear modules that stay in FP32.
        progress: Whether to show a progress bar, where there is a terminal.

    Returns:
        The quantised layers by module name, such as "bert.encoder.layer.0.attention.self.query".

    Raises:
        InvalidInputError: No batch, or a padded or misshapen one; no Linear module to quantise, an unknown
            name in `skip`; an option outside its range.
        CheckpointError: Weights or activations are not finite, or a Linear module does not run exactly once.
        MissingExtraError: Neural Compressor is not installed.
    """
    names = _linear_names(model, skip)
    _check_options(smooth_alpha, weight_bits)
    _check_batches(batches)
    from . import inc

    model = copy.deepcopy(model).eval()
    with (
        inc.quiet(),
        torch.no_grad(),
        tqdm(total=2 * len(batches), desc="Calibrating INT8", disable=None if progress else True) as bar,
    ):

        def run(call: Callable[[dict[str, Tensor]], object]) -> None:
            for batch in batches:
                call(dict(batch))
                bar.update()

        groups = readers_by_tensor(model, names, batches[0])
        channels = inc.Calibration(model, q_func=lambda model: run(lambda batch: model(**batch)))
        low, high = channels.calibrate(1, [nn.Linear])  # once through q_func
        _check_finite(model, names, low, high)
        smoothing: dict[str, Tensor] = {}
        if smooth_alpha is not None:
            for group in groups:
                factor = insert_smoothing(model, group, low[group[0]], high[group[0]], smooth_alpha)
                smoothing |= dict.fromkeys(group, factor)

        longest = max(batches, key=_length)  # the graph would fix an example's length of 1; others stay open
        example = dict(longest)
        any_length = {key: {1: torch.export.Dim.AUTO} for key in example}
        exported = inc.export(_Positional(model), (example,), dynamic_shapes=(any_length,))
        observed = inc.prepare(exported, inc.StaticQuantConfig())
        run(observed)
        return {
            name: QuantizedLinear(
                *_quantize_weight(weight, weight_scale, weight_bits),
                activation_scale=scale,
                activation_zero_point=zero_point,
                smoothing=smoothing[name].numpy() if name in smoothing else None,
            )
            for name, weight, weight_scale, scale, zero_point in _observed_linears(observed)
            if name in names
        }


class _Positional(nn.Module):
    """Takes the keyword arguments of `model` as one positional dictionary, since INC exports no others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, arguments: dict[str, Tensor]) -> object:
        return self.model(**arguments)


def _observed_linears(observed: GraphModule) -> Iterator[tuple[str, Tensor, Tensor, float, int]]:
    """Read name, weight, weight scale, input scale and input zero point of each Linear in INC's graph."""
    observers: dict[str, Any] = dict(observed.named_modules())
    for linear in observed.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        of_input, of_weight = linear.all_input_nodes[:2]
        path = str(of_weight.all_input_nodes[0].target)
        name = path.removeprefix("model.").removesuffix(".weight").removesuffix(".sq_linear")
        scale, zero_point = observers[str(of_input.target)].calculate_qparams()
        weight_scale, _ = observers[str(of_weight.target)].calculate_qparams()
        yield name, observed.get_parameter(path), weight_scale, scale.item(), zero_point.item()


def _quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    lowest, highest = -128, 127
    if bits == 7:  # INC has no such range
        lowest, highest = -63, 63
        scale = (weight.abs().amax(1) / highest).clamp(min=torch.finfo(torch.float32).eps)
    steps = (weight * (1 / scale)[:, None]).round().clamp(lowest, highest)  # INC's rounding, bit for bit
    return steps.to(torch.int8).numpy(), scale.numpy()


def _linear_names(model: nn.Module, skip: Collection[str]) -> list[str]:
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if unknown := sorted(set(skip) - set(linears)):
        raise InvalidInputError(f"skip names {unknown}, but the model's Linear modules are {linears}")
    names = [name for name in linears if name not in skip]
    if not names:
        raise InvalidInputError(
            f"nothing to quantise: the model's Linear modules are {linears}, and skip names {sorted(skip)}"
        )
    return names


def _check_options(smooth_alpha: float | None, weight_bits: int) -> None:
    if smooth_alpha is not None and not 0 <= smooth_alpha <= 1:
        raise InvalidInputError(f"smooth_alpha is {smooth_alpha}; give a number from 0 to 1, or None")
    if weight_bits not in (7, 8):
        raise InvalidInputError(f"weight_bits is {weight_bits}; give 8, or 7 for CPUs without VNNI")


def _length(batch: Batch) -> int:
    return max(tensor.shape[1] for tensor in batch.values())


def _check_batches(batches: Sequence[Batch]) -> None:
    if not batches:
        raise InvalidInputError("there are no calibration batches; give at least one, better about a hundred")
    for i, batch in enumerate(batches):
        if batch.keys() != batches[0].keys():
            raise InvalidInputError(
                f"calibration batch {i} holds {sorted(batch)}, but batch 0 holds {sorted(batches[0])}"
            )
        for key, tensor in batch.items():
            if tensor.ndim != 2 or tensor.shape[0] != 1:
                raise InvalidInputError(
                    f"{key} of calibration batch {i} has shape {list(tensor.shape)}; give one sequence, [1, length]"
                )
        if "attention_mask" in batch and not batch["attention_mask"].all():
            raise InvalidInputError(
                f"calibration batch {i} is padded, which would spoil the ranges; give only its real tokens"
            )


def _check_finite(
    model: nn.Module, names: Sequence[str], low: Mapping[str, Tensor], high: Mapping[str, Tensor]
) -> None:
    for name in names:
        tensors = (model.get_parameter(f"{name}.weight"), low[name], high[name])
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise CheckpointError(
                f"weights or calibration inputs of {name} are NaN or infinite; the checkpoint is damaged"
            )
