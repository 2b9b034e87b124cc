"""Fit the scorers of learnt significance on a frozen bundle, from examples without labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from dynamic_tinybert.calibration.data import shuffled
from dynamic_tinybert.modeling.memory import keep_freed_memory
from dynamic_tinybert.modeling.scorer import Scorer, load_scorers
from dynamic_tinybert.modeling.scorer_passes import draw_shares
from dynamic_tinybert.modeling.scorer_targets import TrainedScorer, token_loss
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.measure import measure_of

from .states import StateReader, States
from .teacher import ScorerExamples, ScorerTeacher
from .windows import batches_by_length, compact_windows

LEARNING_RATE = 4e-3
LEARNING_RATE_FITTED = 3e-4  # of scorers that the bundle has already
WARM_UP_STEPS = 20
RECENT, REPLAYS = 64, 2
"""A batch takes longer to prepare than several optimiser steps on it. So the step on each batch is followed by steps on
`REPLAYS` of the `RECENT` batches that were prepared last."""

HELD_OUT = 400
"""Largest number of examples, at most a tenth of all, for thresholds and held-out losses."""

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
    steps: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a scorer for each of some layers to what the bundle's model itself says of its tokens.

    Scorers that the bundle has already are fitted further, others from their beginning: a model that was trained with
    its scorers relies on what these keep. All scorers learn where the model's answer is. Those of the first half of the
    layers also learn token importance, that is what later layers need; those of the other layers also learn from passes
    that drop tokens.

    Args:
        bundle: A bundle; its graph is run at full length and not changed.
        examples: Examples of the bundle's task, at least two; those that the model cannot read are skipped. Labels
            are not used.
        layers: Layers that get a scorer.
        seconds: Longest time to spend, unless `steps` is given.
        most_passes: Largest number of passes over the examples, unless `steps` is given.
        steps: Number of batches to learn from, whatever time they take.
        seed: Seed for the order of the examples and the initial weights of the scorers.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        BundleFormatError: No PyTorch model can be made of the bundle's graph.
        DataError: The model can read none of the examples.
        InferenceError: OpenVINO failed.
    """
    started = monotonic()
    stay_within_quota()
    keep_freed_memory()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    order = [examples[i] for i in random.permutation(len(examples))]
    count = min(HELD_OUT, -(-len(examples) // 10))
    measure = measure_of(bundle)
    held_out, fitting = (batches_by_length(compact_windows(measure, part)) for part in (order[:count], order[count:]))
    if not held_out or not fitting:
        raise measure.refuse_all(f"the {measure.examples} to fit on")
    teacher = ScorerTeacher(bundle, layers)
    teacher.check(fitting[len(fitting) // 2])
    known = load_scorers(bundle.scorers) if bundle.scorers else {}
    scorers = {layer: TrainedScorer(known.get(layer) or Scorer(bundle.shape.hidden_size)) for layer in layers}
    learning_rates = {layer: LEARNING_RATE_FITTED if layer in known else LEARNING_RATE for layer in layers}
    optimizer = torch.optim.AdamW(
        {"params": list(scorer.parameters()), "lr": learning_rates[layer], "initial_lr": learning_rates[layer]}
        for layer, scorer in scorers.items()
    )
    if steps is None:
        steps = most_passes * len(fitting)
    else:
        seconds = math.inf
    seen = 0
    recent: dict[int, Batch] = {}
    with tqdm(total=1.0, desc="Fitting scorers", bar_format=_BAR, disable=None if progress else True) as bar:
        for step, index in enumerate(_endless(len(fitting), random)):
            done = min(1.0, max(step / steps, (monotonic() - started) / seconds))
            bar.update(done - bar.n)
            if done == 1 and step:  # at least one batch, however short the time
                break
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * min(1, (step + 1) / WARM_UP_STEPS) * (1 - done)
            batch = recent.pop(index, None) or Batch.of(teacher, fitting[index])
            recent[index] = batch = batch.with_dropped(teacher, scorers, draw_shares(layers, random))
            if len(recent) > RECENT:
                del recent[next(iter(recent))]  # the oldest one
            kept = list(recent.values())
            for chosen in (batch, *(kept[i] for i in random.integers(len(kept), size=REPLAYS))):
                optimizer.zero_grad()
                torch.stack(list(losses(scorers, chosen).values())).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            seen += len(fitting[index])
    judged = [judge(scorers, *teacher.full(windows)) for windows in held_out]
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
        significance_of(scorers, read(windows)) for windows in batches_by_length(compact_windows(measure, chosen))
    ]
    if not judged:
        raise measure.refuse_all(f"the {measure.examples} to take thresholds from")
    return {layer: np.concatenate([significance[layer] for significance in judged]) for layer in scorers}


def _endless(count: int, random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from random.permutation(count).tolist()


@dataclass(frozen=True)
class Batch:
    """What scorers learn from a batch of windows.

    Attributes:
        states: The graph's results at full length, without the states of layers, which `full` holds already.
        full: What the scorers of all layers learn from it.
        dropped: What those of late layers learn from the last pass that dropped tokens; may be empty.
    """

    states: States
    full: Mapping[int, ScorerExamples]
    dropped: Mapping[int, ScorerExamples] = field(default_factory=dict)

    @classmethod
    def of(cls, teacher: ScorerTeacher, windows: Sequence[TokenSequence]) -> Batch:
        """Make the batch of some windows; no pass has dropped tokens yet."""
        states, full = teacher.full(windows)
        return cls(replace(states, by_layer={}), full)

    def with_dropped(self, teacher: ScorerTeacher, scorers: Mapping[int, Scorer], shares: Mapping[int, float]) -> Batch:
        """The same batch with a new pass that drops tokens."""
        return replace(self, dropped=teacher.dropped(self.states, scorers, shares))


def losses(scorers: Mapping[int, Scorer], batch: Batch) -> dict[int, Tensor]:
    """The `token_loss` of each layer's scorer; the mean of both passes for layers that learn from both."""
    found = {layer: scorer_loss(scorers[layer], examples) for layer, examples in batch.full.items()}
    for layer, examples in batch.dropped.items():
        found[layer] = (found[layer] + scorer_loss(scorers[layer], examples)) / 2
    return found


def scorer_loss(scorer: Scorer, examples: ScorerExamples) -> Tensor:
    """The `token_loss` of one scorer."""
    significance = scorer.logits(examples.state.float(), examples.protected, examples.real).sigmoid()
    return token_loss(significance, examples.keep, examples.droppable, examples.weight_of_kept)


@torch.no_grad()
def judge(
    scorers: Mapping[int, Scorer], states: States, examples: Mapping[int, ScorerExamples]
) -> tuple[dict[int, npt.NDArray[np.float32]], dict[int, float]]:
    """By layer, the significance of the real tokens of a batch, and the mean loss."""
    mean_losses = {layer: float(scorer_loss(scorers[layer], own)) for layer, own in examples.items()}
    return significance_of(scorers, states), mean_losses


@torch.no_grad()
def significance_of(scorers: Mapping[int, Scorer], states: States) -> dict[int, npt.NDArray[np.float32]]:
    """By layer, the significance of the real tokens of a batch, float32 [tokens]; that of protected ones is above 1."""
    protected, real = torch.from_numpy(states.protected), torch.from_numpy(states.real)
    found = {}
    for layer, scorer in scorers.items():
        significance = scorer(torch.from_numpy(states.by_layer[layer]), protected, real)
        found[layer] = significance.numpy()[states.real > 0]
    return found
