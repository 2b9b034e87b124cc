"""Compare an FP32 graph with the PyTorch reference: does it choose the same tokens and give the same logits?"""

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
from dynamic_tinybert.runtime.encoder.scorer import ScorerWeights, carried_out
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

Batch = Mapping[str, npt.NDArray[np.int64]]
Runner = Callable[[Batch], Arrays]

LOGIT_TOLERANCE = 1e-4
SIGNIFICANCE_TOLERANCE = 1e-5  # learnt; times the number of heads for attention


@dataclass(frozen=True)
class Parity:
    """How far a graph is from the reference.

    Attributes:
        max_difference: Largest absolute difference of a real token's logits, with the graph's kept positions
            forced into the reference.
        disputed: Tokens that only one of the two keeps; their significance is at the cut or the threshold
            within rounding.
        chosen_from: Tokens that were chosen from.
    """

    max_difference: float
    disputed: int
    chosen_from: int


def graph_runner(
    plain: ov.Model,
    length_config: LengthConfig,
    *,
    num_heads: int,
    scorers: Mapping[int, ScorerWeights] | None = None,
    elastic: bool = False,
) -> Runner:
    """Compile a plain graph at a length configuration, as the runtime does, to be called with batches."""
    num_layers = len(length_config.keep_ratios)
    graph = with_selection(
        plain,
        None if elastic else length_config,
        task=QUESTION_ANSWERING,
        num_layers=num_layers,
        num_heads=num_heads,
        scorers=scorers,
        multiple=LENGTH_MULTIPLE,
    )
    properties = {"INFERENCE_PRECISION_HINT": "f32", **thread_properties()}
    compiled = CompiledGraph(partial(extension_library.core().compile_model, graph, "CPU", properties))
    limits = bounds(carried_out(length_config, num_layers, scorers)) if elastic else {}
    return lambda batch: compiled.infer({**batch, **limits})


def check_parity(
    reference: ReferenceModel, run: Runner, batches: Sequence[Batch], length_config: LengthConfig
) -> Parity:
    """Compare a graph with the reference on some batches.

    The logits must agree to 1e-4 when the reference keeps what the graph kept. The graph must keep what the
    reference would, but for tokens whose significance is within rounding of the cut or of the threshold.

    Raises:
        ParityError: They do not.
    """
    config, length_config = reference.model.config, reference.carried_out(length_config)
    tolerance = SIGNIFICANCE_TOLERANCE * (config.num_attention_heads if reference.significance == "attention" else 1)
    difference, disputed, chosen_from = np.float32(0), 0, 0
    for batch in batches:
        outputs = run(batch)
        length = batch["input_ids"].shape[1]
        kept = kept_positions(outputs, length)
        with torch.inference_mode():
            expected: ReferenceOutput = reference(
                **{name: torch.from_numpy(array) for name, array in batch.items()},
                length_config=length_config,
                forced_positions={layer: torch.from_numpy(p).long() for layer, p in kept.items()},
            )
        real = batch["attention_mask"] == 1
        for name, logits in (("start_logits", expected.start_logits), ("end_logits", expected.end_logits)):
            difference = np.maximum(difference, np.abs(outputs[name] - logits.numpy())[real].max())  # keeps NaN
        if not difference <= LOGIT_TOLERANCE:
            raise ParityError(
                f"logits of the graph and of the reference differ by {difference:.2e} at {length_config}, "
                f"more than {LOGIT_TOLERANCE:.0e}; this is a defect of the export: please report it"
            )
        lengths = batch["attention_mask"].sum(1)
        for layer in length_config.selecting_layers:
            for row, entering in enumerate(expected.entering[layer].numpy()):
                present = entering < length
                positions = kept[layer][row]
                disputed += _disputed(
                    dict(zip(entering[present], expected.significance[layer][row].numpy()[present], strict=True)),
                    set(positions[positions < length].tolist()),
                    length_config.most_kept(int(lengths[row]))[layer],
                    length_config.thresholds[layer],
                    tolerance,
                    f"layer {layer}, row {row} of {length} tokens, {length_config}",
                )
                chosen_from += int(present.sum())
    return Parity(float(difference), disputed, chosen_from)


def _disputed(
    significance: Mapping[int, float],
    kept: set[int],
    most: int,
    threshold: float | None,
    tolerance: float,
    where: str,
) -> int:
    """Number of tokens that only one side keeps; refuses any that rounding does not explain."""
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


def random_batch(lengths: Sequence[int], vocab_size: int, seed: int = 0) -> Batch:
    """Random token ids of sequences of these lengths, padded to the longest, the first sixth being the question."""
    generator = np.random.default_rng(seed)
    columns = np.arange(max(lengths))
    mask = (columns < np.array(lengths)[:, None]).astype(np.int64)
    return {
        "input_ids": generator.integers(0, vocab_size, mask.shape) * mask,
        "attention_mask": mask,
        "token_type_ids": mask * (columns >= (np.array(lengths)[:, None] + 5) // 6),
    }
