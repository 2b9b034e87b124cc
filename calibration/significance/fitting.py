"""Fit the scorers of learnt significance on a frozen bundle, from examples without labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dynamic_tinybert.calibration.data import shuffled
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.tasks import model_task
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.measure import Measure, measure_of, readable_windows

from .states import StateReader, States

BATCH_SIZE = 16
LEARNING_RATE = 4e-3
WARM_UP_STEPS = 20
WEIGHT_OF_KEPT = 5.0
"""Loss weight of tokens worth keeping; others have 1. Dropping a needed token costs more than keeping another."""

RECENT, REPLAYS = 64, 2
"""Reading the states of a batch takes as long as two optimiser steps on them. So the step on each new batch is
followed by steps on `REPLAYS` of the `RECENT` batches that were read last."""

HELD_OUT = 400
"""Largest number of examples, at most a tenth of all, for thresholds and held-out losses."""

Targets = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""Targets of scorers [B, L], given a model's outputs and a mask of droppable tokens; see `ModelTask`."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class Fit:
    """Fitted scorers.

    Attributes:
        scorers: One scorer for each requested layer.
        significance: For each of these layers, the significance of all real tokens of the held-out examples, float32
            [tokens].
        losses: Mean held-out loss of each layer.
        windows: Number of windows that were fitted on; a window that was read twice counts twice.
    """

    scorers: Mapping[int, Scorer]
    significance: Mapping[int, npt.NDArray[np.float32]]
    losses: Mapping[int, float]
    windows: int


def fit_scorers(
    bundle: Bundle,
    examples: Sequence[Any],
    layers: Sequence[int],
    *,
    seconds: float,
    most_passes: int,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a scorer for each of some layers to the outputs of the bundle itself.

    Args:
        bundle: A bundle; its graph is run at full length and not changed.
        examples: Examples of the bundle's task, at least two; those that the model cannot read are skipped. Labels
            are not used.
        layers: Layers that get a scorer.
        seconds: Longest time to spend.
        most_passes: Largest number of passes over the examples.
        seed: Seed for the order of the examples and the initial weights of the scorers.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        DataError: The model can read none of the examples.
        InferenceError: OpenVINO failed.
    """
    stay_within_quota()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    order = [examples[i] for i in random.permutation(len(examples))]
    count = min(HELD_OUT, -(-len(examples) // 10))
    measure, targets = measure_of(bundle), model_task(bundle.task).significance_targets
    held_out, fitting = (batches_by_length(measure, part) for part in (order[:count], order[count:]))
    read = StateReader(bundle, layers)
    scorers = {layer: Scorer(bundle.shape.hidden_size) for layer in layers}
    optimizer = torch.optim.AdamW([p for scorer in scorers.values() for p in scorer.parameters()], LEARNING_RATE)
    steps, seen = most_passes * len(fitting), 0
    recent: deque[States] = deque(maxlen=RECENT)
    started = monotonic()
    with tqdm(total=1.0, desc="Fitting scorers", bar_format=_BAR, disable=None if progress else True) as bar:
        for step, batch in enumerate(_endless(fitting, random)):
            done = min(1.0, max(step / steps, (monotonic() - started) / seconds))
            bar.update(done - bar.n)
            if done == 1 and (seen or step >= steps):  # at least one batch, however short the time
                break
            if not (windows := readable_windows(measure, batch)):
                continue
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (1 - done)
            recent.append(read(windows))
            for states in (recent[-1], *(recent[i] for i in random.integers(len(recent), size=REPLAYS))):
                optimizer.zero_grad()
                torch.stack(list(losses(scorers, states, targets).values())).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            seen += len(windows)
    judged = [
        judge(scorers, read(windows), targets) for batch in held_out if (windows := readable_windows(measure, batch))
    ]
    if not seen or not judged:
        raise measure.refuse_all(f"the {measure.examples} to fit on")
    return Fit(
        scorers,
        significance={layer: np.concatenate([significance[layer] for significance, _ in judged]) for layer in layers},
        losses={layer: float(np.mean([of_layer[layer] for _, of_layer in judged])) for layer in layers},
        windows=seen,
    )


def sample_significance(
    bundle: Bundle, examples: Sequence[Any], scorers: Mapping[int, Scorer], *, seed: int
) -> dict[int, npt.NDArray[np.float32]]:
    """The significance that scorers give to every real token of some of the examples, float32 [tokens] by layer.

    Args:
        bundle: A bundle; its graph is run at full length.
        examples: Examples of the bundle's task; those that the model cannot read are skipped.
        scorers: Scorers by layer.
        seed: Seed for the choice of examples.

    Raises:
        DataError: The model can read none of the examples.
        InferenceError: OpenVINO failed.
    """
    chosen = shuffled(examples, seed)[:HELD_OUT]
    measure, read = measure_of(bundle), StateReader(bundle, tuple(scorers))
    judged = [
        significance_of(scorers, read(windows))
        for batch in batches_by_length(measure, chosen)
        if (windows := readable_windows(measure, batch))
    ]
    if not judged:
        raise measure.refuse_all(f"the {measure.examples} to take thresholds from")
    return {layer: np.concatenate([significance[layer] for significance in judged]) for layer in scorers}


def batches_by_length(measure: Measure[Any], examples: Sequence[Any]) -> list[list[Any]]:
    """Batches of examples of similar length."""
    ordered = sorted(examples, key=measure.size_of)
    return [ordered[first : first + BATCH_SIZE] for first in range(0, len(ordered), BATCH_SIZE)]


def _endless(batches: Sequence[list[Any]], random: np.random.Generator) -> Iterator[list[Any]]:
    while True:
        for index in random.permutation(len(batches)):
            yield batches[index]


def _logits(scorers: Mapping[int, Scorer], states: States) -> dict[int, Tensor]:
    protected, real = torch.from_numpy(states.protected), torch.from_numpy(states.real)
    return {
        layer: scorer.logits(torch.from_numpy(states.by_layer[layer]), protected, real)
        for layer, scorer in scorers.items()
    }


def losses(
    scorers: Mapping[int, Scorer], states: States, targets: Targets, *, weight_of_kept: float = WEIGHT_OF_KEPT
) -> dict[int, Tensor]:
    """Binary cross-entropy of each layer's scorer, mean over the tokens that may be dropped.

    Args:
        scorers: Scorers by layer.
        states: The states that they read, and the outputs of the model.
        targets: Computes their targets.
        weight_of_kept: Weight of tokens that are worth keeping, relative to others.
    """
    droppable = torch.from_numpy(states.real - states.protected)
    outputs = {name: torch.from_numpy(output) for name, output in states.outputs.items()}
    target = targets(outputs, droppable)
    weight = torch.tensor(weight_of_kept)
    return {
        layer: (
            functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight) * droppable
        ).sum()
        / droppable.sum()
        for layer, logits in _logits(scorers, states).items()
    }


@torch.no_grad()
def judge(
    scorers: Mapping[int, Scorer], states: States, targets: Targets
) -> tuple[dict[int, npt.NDArray[np.float32]], dict[int, float]]:
    """By layer, the significance of the real tokens of a batch, and the mean loss."""
    mean_losses = {layer: float(loss) for layer, loss in losses(scorers, states, targets).items()}
    return significance_of(scorers, states), mean_losses


@torch.no_grad()
def significance_of(scorers: Mapping[int, Scorer], states: States) -> dict[int, npt.NDArray[np.float32]]:
    """By layer, the significance of the real tokens of a batch, float32 [tokens]; that of protected ones is above 1."""
    real = states.real > 0
    return {
        layer: (logits.sigmoid().numpy() + states.protected)[real] for layer, logits in _logits(scorers, states).items()
    }
