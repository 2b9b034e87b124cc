"""SmoothQuant before Linear layers, with one factor for all layers that read the same tensor."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dynamic_tinybert.runtime.common.errors import CheckpointError


def readers_by_tensor(model: nn.Module, names: Sequence[str], inputs: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the named modules by the tensor that they read, in one forward pass over `inputs`.

    Raises:
        CheckpointError: One of the modules does not run exactly once.
    """
    readers: dict[Tensor, list[str]] = defaultdict(list)  # tensors hash by identity, and stay alive as keys

    def note(name: str, tensor: Tensor) -> None:
        readers[tensor].append(name)

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name in names
    ]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    groups = list(readers.values())
    runs = [name for group in groups for name in group]
    for name in names:
        if runs.count(name) != 1:
            raise CheckpointError(
                f"Linear module {name} runs {runs.count(name)} times in a forward pass instead of once; "
                "name it in skip to leave it in FP32"
            )
    return groups


def insert_smoothing(model: nn.Module, group: Sequence[str], low: Tensor, high: Tensor, alpha: float) -> Tensor:
    """Insert SmoothQuant's multiplication before each Linear of `group`, and divide their weights by it.

    This uses parts of INC's TorchSmoothQuant rather than that class, which finds such groups by torch.jit.trace
    (it fails on transformers' BERT) and imports peft (it is not among INC's requirements).

    Args:
        model: Changed in place: each Linear is wrapped in INC's SQLinearWrapper.
        group: Names of Linear modules that read the same tensor.
        low: Smallest value of each channel of that tensor, [in].
        high: Largest value, [in].
        alpha: SmoothQuant's migration strength, 0 to 1.

    Returns:
        The factor that each channel of the tensor is now multiplied by, [in].
    """
    from . import inc

    weights = [model.get_parameter(f"{name}.weight") for name in group]
    factor: Tensor = 1 / inc.cal_scale(torch.maximum(low.abs(), high.abs()), weights, alpha)
    for name in group:
        linear = model.get_submodule(name)
        model.set_submodule(name, inc.SQLinearWrapper(linear, factor, (low, high), alpha))
    return factor
