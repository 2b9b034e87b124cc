"""The multiply-accumulates that a model executes, its scorers included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.length_config import LengthConfig, executed_macs

from .scorer import LayerSignificance, learnt_layers, macs_per_token
from .task_graph import TaskGraph


def macs_of_sequence(
    bundle: Bundle,
    task: TaskGraph,
    scorers: Mapping[int, LayerSignificance] | None,
    config: LengthConfig,
    length: int,
    kept: Sequence[int],
) -> int:
    """Multiply-accumulates that the encoder and its scorers execute for one sequence.

    Args:
        bundle: The bundle.
        task: Its task.
        scorers: Its scorers by layer; None for attention significance.
        config: The length configuration, after `carried_out`.
        length: Number of real tokens of the sequence.
        kept: For each layer, the number of tokens that it passed on; of fewer layers for their cost alone.
    """
    num_layers = bundle.shape.num_layers
    own = scorers or {}
    computing = config.selecting_layers
    if scorers is not None:
        computing = tuple(learnt_layers(scorers).computed(config, num_layers))
    return executed_macs(
        bundle.shape,
        length,
        kept,
        [bundle.significance if i in computing else None for i in range(len(kept))],
        {layer: macs_per_token(own[layer]) for layer in computing if layer in own},
        first_token_only=task.first_token_only and len(kept) == num_layers,
    )
