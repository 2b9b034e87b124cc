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

from .input_checks import ActivationRanges, Batch, check_batches, check_finite, check_options, linear_names
from .smoothing import insert_smoothing, readers_by_tensor

_INC_ALGORITHMS = {"moving-average": "minmax", "extremes": "minmax", "histogram": "kl"}


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


@dataclass(frozen=True, eq=False)
class ChannelExtremes:
    """Smallest and largest value of each input channel of a model's Linear layers, over calibration batches.

    Attributes:
        low: float32 [in] by module name.
        high: float32 [in] by module name.
        groups: The modules, grouped by the tensor that they read.
    """

    low: Mapping[str, Tensor]
    high: Mapping[str, Tensor]
    groups: Sequence[Sequence[str]]


def channel_extremes(
    model: nn.Module, batches: Sequence[Batch], *, skip: Collection[str] = (), progress: bool = True
) -> ChannelExtremes:
    """Run the calibration batches once to find the channel ranges that SmoothQuant needs.

    The result serves any number of calls of `quantize_linears`, which describes the arguments and errors.
    """
    names = linear_names(model, skip)
    check_batches(batches)
    from . import inc

    model = copy.deepcopy(model).eval()
    with inc.quiet(), torch.no_grad():
        groups = readers_by_tensor(model, names, batches[0])
        calibration = inc.Calibration(
            model, q_func=lambda model: _run(lambda batch: model(**batch), batches, "Reading channels", progress)
        )
        low, high = calibration.calibrate(1, [nn.Linear])  # once through q_func
    check_finite(model, names, low, high)
    return ChannelExtremes(low, high, groups)


def quantize_linears(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    smooth_alpha: float | None = 0.75,
    ranges: ActivationRanges = "moving-average",
    weight_bits: int = 8,
    skip: Collection[str] = (),
    extremes: ChannelExtremes | None = None,
    progress: bool = True,
) -> dict[str, QuantizedLinear]:
    """Calibrate the Linear layers of `model` with INC's SmoothQuant and PT2E static quantisation.

    Weights have one scale per output channel. Layers that read the same tensor (query, key and value of one
    layer) get the same smoothing, scale and zero point, so that one quantised input serves them all.

    Args:
        model: An FP32 module that `torch.export` accepts. It is copied, not changed.
        batches: Calibration inputs, each the keyword arguments of one call: tensors [1, length] without
            padding, which would count towards the ranges. Lengths may differ from batch to batch.
        smooth_alpha: SmoothQuant's migration strength, 0 to 1: how much of the difficulty of quantisation moves from
            the activations to the weights; None for no SmoothQuant.
        ranges: INC's default is "moving-average" (constant 0.01) of the batches' minima and maxima: the first
            batch counts most, so it should be a typical one. "extremes" clips nothing that occurred;
            "histogram" (INC's `kl`) clips where that costs the least squared error.
        weight_bits: 8, or 7 for other runtimes on CPUs without VNNI, which add two u8·s8 products in 16 bits and
            saturate: the weights then lie within [-63, 63].
        skip: Names of Linear modules that stay in FP32.
        extremes: Result of `channel_extremes` for the same model, batches and `skip`; computed here if None.
        progress: Whether to show a progress bar, where there is a terminal.

    Returns:
        The quantised layers by module name, such as "bert.encoder.layer.0.attention.self.query".

    Raises:
        InvalidInputError: No batch, or a padded or misshapen one; no Linear module to quantise, an unknown
            name in `skip`; an option outside its range.
        CheckpointError: Weights or activations are not finite, or a Linear module does not run exactly once.
        MissingExtraError: Neural Compressor is not installed.
    """
    check_options(smooth_alpha, ranges, weight_bits)
    if extremes is None:
        extremes = channel_extremes(model, batches, skip=skip, progress=progress)
    from . import inc

    model = copy.deepcopy(model).eval()
    smoothing: dict[str, Tensor] = {}
    with inc.quiet(), torch.no_grad():
        if smooth_alpha is not None:
            for group in extremes.groups:
                low, high = extremes.low[group[0]], extremes.high[group[0]]
                smoothing |= dict.fromkeys(group, insert_smoothing(model, group, low, high, smooth_alpha))
        longest = max(batches, key=_length)  # an example of length 1 would fix the length; any other leaves it dynamic
        example = dict(longest)
        any_length = {key: {1: torch.export.Dim.AUTO} for key in example}
        exported = inc.export(_Positional(model), (example,), dynamic_shapes=(any_length,))
        observed = inc.prepare(exported, inc.StaticQuantConfig(act_algo=_INC_ALGORITHMS[ranges]))
        seen = batches[:1] if ranges == "extremes" else batches  # the weights' observers need a run, too
        _run(observed, seen, "Calibrating INT8", progress)
        names = {name for group in extremes.groups for name in group}
        quantized = {}
        for name, weight, of_weight, of_input in _observed_linears(observed):
            if name not in names:
                continue
            factor = smoothing.get(name)
            if ranges == "extremes":
                # INC has no algorithm for the extremes of all batches; its minmax is a moving average. So the range is
                # written into its observer, which derives scale and zero point as it does for its own algorithms.
                scaling = 1 if factor is None else factor
                of_input.min_val = (extremes.low[name] * scaling).min()
                of_input.max_val = (extremes.high[name] * scaling).max()
            scale, zero_point = of_input.calculate_qparams()
            weight_scale, _ = of_weight.calculate_qparams()
            quantized[name] = QuantizedLinear(
                *_quantize_weight(weight, weight_scale, weight_bits),
                activation_scale=scale.item(),
                activation_zero_point=zero_point.item(),
                smoothing=None if factor is None else factor.numpy(),
            )
        return quantized


def _run(call: Callable[[dict[str, Tensor]], object], batches: Sequence[Batch], what: str, progress: bool) -> None:
    for batch in tqdm(batches, desc=what, leave=False, disable=None if progress else True):
        call(dict(batch))


class _Positional(nn.Module):
    """Takes the keyword arguments of `model` as one positional dictionary, as INC exports positional arguments only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, arguments: dict[str, Tensor]) -> object:
        return self.model(**arguments)


def _observed_linears(observed: GraphModule) -> Iterator[tuple[str, Tensor, Any, Any]]:
    """Name, weight, observer of the weight and observer of the input of each Linear in INC's graph."""
    observers: dict[str, Any] = dict(observed.named_modules())
    for linear in observed.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        of_input, of_weight = linear.all_input_nodes[:2]
        path = str(of_weight.all_input_nodes[0].target)
        name = path.removeprefix("model.").removesuffix(".weight").removesuffix(".sq_linear")
        yield name, observed.get_parameter(path), observers[str(of_weight.target)], observers[str(of_input.target)]


def _quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    lowest, highest = -128, 127
    if bits == 7:  # INC has no such range
        lowest, highest = -63, 63
        scale = (weight.abs().amax(1) / highest).clamp(min=torch.finfo(torch.float32).eps)
    steps = (weight * (1 / scale)[:, None]).round().clamp(lowest, highest)  # INC's rounding, bit for bit
    return steps.to(torch.int8).numpy(), scale.numpy()


def _length(batch: Batch) -> int:
    return max(tensor.shape[1] for tensor in batch.values())
