"""Learnt significance of a layer, by a scorer or the context rule: its tensors, and its nodes in a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.length_config import LengthConfig

from .learnt_layers import LearntLayers
from .ops import context_significance, learnt_significance

_COLUMNS = 16  # columns that the op computes at once
_QUESTION = 16  # tokens of the question that `macs_per_token` assumes


@dataclass(frozen=True)
class LearntScorer:
    """A learnt scorer of one layer.

    Attributes:
        tensors: Its tensors by name, without the prefix ``layer.{i}.`` that they have in the bundle's file.
    """

    tensors: Mapping[str, npt.NDArray[np.float32]]

    @property
    def depth(self) -> int:
        """Number of convolutions, each with the matrix that mixes its features."""
        return sum(name.startswith("mix.") and name.endswith(".weight") for name in self.tensors)


@dataclass(frozen=True)
class ContextRule:
    """A layer that keeps the context and the special tokens, see `ops.context_significance`; nothing is learnt."""


LayerSignificance = LearntScorer | ContextRule
"""Where the significance of a layer comes from."""


def carried_out(
    length_config: LengthConfig,
    num_layers: int,
    scorers: Mapping[int, LayerSignificance] | None,
    *,
    first_token_only: bool = False,
) -> LengthConfig:
    """A length configuration as a model can execute it, see `LearntLayers.carried_out`.

    Args:
        length_config: The requested configuration.
        num_layers: Layers of the model.
        scorers: Its scorers by layer; None for a model with attention significance, where every layer can select.
        first_token_only: The last layer computes only the first token, so that it has none to drop; see
            `TaskGraph.first_token_only`.

    Raises:
        LengthConfigError: The number of layers differs, or a layer without a scorer has a threshold.
    """
    length_config.check_layers(num_layers)
    if first_token_only:
        length_config = length_config.without_last_selection()
    return length_config if scorers is None else learnt_layers(scorers).carried_out(length_config)


def learnt_layers(scorers: Mapping[int, LayerSignificance]) -> LearntLayers:
    """The layers that have a scorer, and those that have the context rule."""
    rules = frozenset(ruled_layers(scorers))
    return LearntLayers(frozenset(scorers) - rules, rules)


def ruled_layers(scorers: Mapping[int, LayerSignificance]) -> list[int]:
    """The layers that have the context rule."""
    return [layer for layer, significance in scorers.items() if isinstance(significance, ContextRule)]


def macs_per_token(significance: LayerSignificance) -> int:
    """Multiply-accumulates of a scorer per token for a question of 16 tokens, whose own cost is left out."""
    if isinstance(significance, ContextRule):
        return 0
    tensors = significance.tensors
    width, inputs = tensors["input.weight"].shape
    compared, heads = len(tensors["match_token.weight"]), tensors["match.weight"].shape[1]
    neighbours = sum(w.shape[2] for name, w in tensors.items() if name.startswith("convolution.") and w.ndim == 3)
    mixing = sum(w.size for name, w in tensors.items() if name.startswith("mix.") and w.ndim == 2)
    matching = (inputs // 2 + _QUESTION) * compared + heads * width
    return int(inputs // 2 * width + matching + neighbours * width + mixing + width)


def score(
    state: ov.Output, protected: ov.Output, mask: ov.Output, significance: LayerSignificance, *, int12: bool = False
) -> ov.Output:
    """Build the nodes of a layer's significance, float32 [B, L].

    The significance is the sigmoid of the scorer's logit, plus 1 for protected tokens; or, for the context rule, the
    result of `ops.context_significance`.

    Args:
        state: The layer's states after attention's LayerNorm, float32 [B, L, H].
        protected: float32 [B, L], 1 for real tokens that learnt significance never drops and that the scorer treats as
            the question, else 0.
        mask: float32 [B, L], 0 for real tokens, -10000 for padding.
        significance: The scorer or the rule.
        int12: Project the states with integers of 12 bits, see `ops.learnt_significance`.
    """
    if isinstance(significance, ContextRule):
        return context_significance(protected, mask)
    weights = significance.tensors
    match, token_keys = weights["match.weight"], weights["match_token.weight"]  # [W, heads], [heads * head_size, H]
    head_size = len(token_keys) // match.shape[1]
    of_state, of_mean = np.split(weights["input.weight"], 2, axis=1)
    panels = [of_state, token_keys / np.float32(math.sqrt(head_size)), weights["match_question.weight"], of_mean]
    tensors = [*(_panels(weight) for weight in panels), _widened(weights["input.bias"]), _widened(match.T)]
    kernel_sizes = []
    for k in range(significance.depth):
        kernel = weights[f"convolution.{k}.weight"][:, 0].T
        kernel_sizes.append(len(kernel))
        tensors += [_widened(kernel), _widened(weights[f"convolution.{k}.bias"])]
        tensors += [_rows_by_input(weights[f"mix.{k}.weight"]), _widened(weights[f"mix.{k}.bias"])]
    if kernel_sizes:
        tensors.append(_rows_by_input(weights["pool.weight"]))
    tensors += [_widened(weights["output.weight"]), weights["output.bias"]]
    scorer = ops.constant(np.concatenate([tensor.ravel() for tensor in tensors])).output(0)
    return learnt_significance(
        state,
        protected,
        mask,
        scorer,
        width=_widened(weights["input.bias"]).size,
        heads=match.shape[1],
        head_size=head_size,
        kernel_sizes=kernel_sizes,
        int12=int12,
    )


def _panels(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[W, H] as panels [W / 16, H, 16]."""
    return _widened(weight.T).reshape(weight.shape[1], -1, _COLUMNS).swapaxes(0, 1)


def _rows_by_input(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[outputs, inputs] as [inputs, outputs], both padded to a multiple of 16."""
    return _widened(_widened(weight).T)


def _widened(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The last axis padded with zeros to a multiple of 16; they do not change the result."""
    return np.pad(tensor, [(0, 0)] * (tensor.ndim - 1) + [(0, -tensor.shape[-1] % _COLUMNS)])
