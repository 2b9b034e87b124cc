"""Compare an FP32 graph with the PyTorch reference: it must keep the same tokens and give the same logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.runtime.common.errors import ParityError
from dynamic_tinybert.runtime.cpu_quota import thread_properties
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.graph import bounds, kept_positions, with_selection
from dynamic_tinybert.runtime.encoder.scorer import LayerSignificance, carried_out
from dynamic_tinybert.runtime.encoder.task_graph import TaskGraph
from dynamic_tinybert.runtime.length_config import LengthConfig

TokenBatch = Mapping[str, npt.NDArray[np.int64]]
"""The inputs of a model, int64 [B, L] by name."""

Runner = Callable[[TokenBatch], Arrays]
"""Runs a graph on a batch; returns its outputs by name."""

LOGIT_TOLERANCE = 1e-4
SIGNIFICANCE_TOLERANCE = 1e-5  # of learnt significance; times the number of heads for attention significance


@dataclass(frozen=True)
class Parity:
    """The difference between a graph and the reference.

    Attributes:
        max_difference: Largest absolute difference of an output of the head, padding left out, with the graph's kept
            positions forced into the reference.
        disputed: Number of tokens that only one of the two keeps, because their significance is within rounding of the
            cut or of the threshold.
        chosen_from: Number of tokens that selecting layers chose from.
    """

    max_difference: float
    disputed: int
    chosen_from: int


def graph_runner(
    plain: ov.Model,
    length_config: LengthConfig,
    *,
    task: TaskGraph,
    num_heads: int,
    scorers: Mapping[int, LayerSignificance] | None = None,
    elastic: bool = False,
) -> Runner:
    """Compile a plain graph at a length configuration, as the runtime does.

    Args:
        plain: The full-length graph.
        length_config: The length configuration.
        task: The task of the graph.
        num_heads: Number of attention heads.
        scorers: Scorers and context rules by layer; None for attention significance.
        elastic: Make the length configuration an input of the graph.

    Returns:
        A function from a batch to the graph's outputs.
    """
    num_layers = len(length_config.keep_ratios)
    graph = with_selection(
        plain,
        None if elastic else length_config,
        task=task,
        num_layers=num_layers,
        num_heads=num_heads,
        scorers=scorers,
        multiple=LENGTH_MULTIPLE,
    )
    properties = {"INFERENCE_PRECISION_HINT": "f32", **thread_properties()}
    compiled = CompiledGraph(partial(extension_library.core().compile_model, graph, "CPU", properties))
    executed = carried_out(length_config, num_layers, scorers, first_token_only=task.first_token_only)
    limits = bounds(executed) if elastic else {}
    return lambda batch: compiled.infer({**batch, **limits})


def check_parity(
    reference: ReferenceModel, run: Runner, batches: Sequence[TokenBatch], length_config: LengthConfig
) -> Parity:
    """Compare a graph with the reference on some batches.

    The head's outputs must agree to 1e-4 when the reference keeps what the graph kept. The graph must keep what the
    reference would, except for tokens whose significance is within rounding of the cut or of the threshold.

    Raises:
        ParityError: The outputs or the kept tokens do not agree.
    """
    length_config = reference.carried_out(length_config)
    difference, disputed, chosen_from = np.float32(0), 0, 0
    for batch in batches:
        outputs = run(batch)
        kept = kept_positions(outputs, batch["input_ids"].shape[1])
        with torch.inference_mode():
            expected: ReferenceOutput = reference(
                **{name: torch.from_numpy(array) for name, array in batch.items()},
                length_config=length_config,
                forced_positions={layer: torch.from_numpy(p).long() for layer, p in kept.items()},
            )
        real = batch["attention_mask"] == 1
        for name, values in expected.outputs.items():
            differences = np.abs(outputs[name] - values.numpy())
            largest = (differences[real] if reference.task.per_token else differences).max()
            difference = np.maximum(difference, largest)  # NaN fails, too
        if not difference <= LOGIT_TOLERANCE:
            raise ParityError(
                f"logits of the graph and of the reference differ by {difference:.2e} at {length_config}, "
                f"more than {LOGIT_TOLERANCE:.0e}; this is a defect of the export: please report it"
            )
        for layer in length_config.selecting_layers:
            counts = _compare_selection(reference, batch, expected, kept[layer], length_config, layer)
            disputed, chosen_from = disputed + counts[0], chosen_from + counts[1]
    return Parity(float(difference), disputed, chosen_from)


def _compare_selection(
    reference: ReferenceModel,
    batch: TokenBatch,
    expected: ReferenceOutput,
    kept: npt.NDArray[np.int32],
    length_config: LengthConfig,
    layer: int,
) -> tuple[int, int]:
    """Numbers of disputed tokens and of tokens to choose from in a layer; the graph kept positions `kept` [B, n]."""
    by_attention = reference.significance == "attention"
    tolerance = SIGNIFICANCE_TOLERANCE * (reference.model.config.num_attention_heads if by_attention else 1)
    length, lengths = batch["input_ids"].shape[1], batch["attention_mask"].sum(1)
    disputed, chosen_from = 0, 0
    for row, entering in enumerate(expected.entering[layer].numpy()):
        present = entering < length
        positions = kept[row]
        significance = dict(zip(entering[present], expected.significance[layer][row].numpy()[present], strict=True))
        if reference.task.first_token_only:
            significance[entering[present][0]] = np.inf  # it is always kept
        disputed += _disputed(
            significance,
            set(positions[positions < length].tolist()),
            length_config.most_kept(int(lengths[row]))[layer],
            length_config.thresholds[layer],
            tolerance,
            f"layer {layer}, row {row} of {length} tokens, {length_config}",
        )
        chosen_from += int(present.sum())
    return disputed, chosen_from


def _disputed(
    significance: Mapping[int, float],
    kept: set[int],
    most: int,
    threshold: float | None,
    tolerance: float,
    where: str,
) -> int:
    """Number of tokens that only one side keeps; raises ParityError for one that rounding does not explain."""
    ranked = sorted(significance, key=lambda position: (-significance[position], position))
    own = [p for p in ranked[:most] if threshold is None or significance[p] >= threshold] or ranked[:1]
    cut = significance[own[-1]]
    disputed = kept ^ set(own)
    for position in disputed:
        value = significance[position]
        if abs(value - cut) > tolerance and (threshold is None or abs(value - threshold) > tolerance):
            raise ParityError(
                f"{where}: the graph {'keeps' if position in kept else 'drops'} the token at {position}, the reference "
                f"does not; its significance {value:.6f} is not near the cut {cut:.6f} or the threshold {threshold}"
            )
    return len(disputed)


def random_batch(lengths: Sequence[int], vocab_size: int, seed: int = 0) -> TokenBatch:
    """Sequences of random token ids, padded to the longest; a sixth of each sequence is its first segment."""
    generator = np.random.default_rng(seed)
    columns = np.arange(max(lengths))
    mask = (columns < np.array(lengths)[:, None]).astype(np.int64)
    return {
        "input_ids": generator.integers(0, vocab_size, mask.shape) * mask,
        "attention_mask": mask,
        "token_type_ids": mask * (columns >= (np.array(lengths)[:, None] + 5) // 6),
    }
