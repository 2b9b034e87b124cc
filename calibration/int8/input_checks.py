"""Checks of what INT8 weights and ranges are computed from: the model, the calibration batches and the options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from dynamic_tinybert.runtime.common.errors import CheckpointError, InvalidInputError

Batch = Mapping[str, Tensor]

ActivationRanges = Literal["moving-average", "extremes", "histogram"]
"""How the range of an activation is derived from the calibration batches."""


def linear_names(model: nn.Module, skip: Collection[str]) -> list[str]:
    """Names of the Linear modules to quantise: all but those in `skip`.

    Raises:
        InvalidInputError: `skip` names a module that does not exist, or leaves none.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if unknown := sorted(set(skip) - set(linears)):
        raise InvalidInputError(f"skip names {unknown}, but the model's Linear modules are {linears}")
    names = [name for name in linears if name not in skip]
    if not names:
        raise InvalidInputError(
            f"nothing to quantise: the model's Linear modules are {linears}, and skip names {sorted(skip)}"
        )
    return names


def check_options(smooth_alpha: float | None, ranges: str, weight_bits: int) -> None:
    """Raise InvalidInputError for an option that is outside its range."""
    if smooth_alpha is not None and not 0 <= smooth_alpha <= 1:
        raise InvalidInputError(f"smooth_alpha is {smooth_alpha}; give a number from 0 to 1, or None")
    if ranges not in get_args(ActivationRanges):
        raise InvalidInputError(f"ranges is {ranges!r}; give one of {get_args(ActivationRanges)}")
    if weight_bits not in (7, 8):
        raise InvalidInputError(f"weight_bits is {weight_bits}; give 8, or 7 for other runtimes on CPUs without VNNI")


def check_batches(batches: Sequence[Batch]) -> None:
    """Raise InvalidInputError unless there are batches of one unpadded sequence each, with the same tensors in all."""
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


def check_finite(model: nn.Module, names: Sequence[str], low: Mapping[str, Tensor], high: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if a weight or the range of an input, of one of the modules `names`, is NaN or infinite."""
    for name in names:
        tensors = (model.get_parameter(f"{name}.weight"), low[name], high[name])
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise CheckpointError(
                f"weights or calibration inputs of {name} are NaN or infinite; the checkpoint is damaged"
            )
