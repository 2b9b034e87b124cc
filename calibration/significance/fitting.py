"""Fit the scorers of learnt significance on a frozen bundle, from questions and contexts alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing, batches_by_length

from .states import StateReader, States

BATCH_SIZE = 16
LEARNING_RATE = 4e-3
WARM_UP_STEPS = 20
WIDENED_BY = 2
"""Tokens on each side of a likely start or end that are worth keeping, too."""
WEIGHT_OF_KEPT = 5.0
"""A token that matters weighs so many times one that does not: dropping it costs more than keeping another."""

RECENT, REPLAYS = 64, 2
"""Reading a batch of states takes as long as two steps on it: after it, so many of the recent ones come again."""

HELD_OUT = 400
"""Questions, at most a tenth of all, from which thresholds are taken."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class Fit:
    """Fitted scorers.

    Attributes:
        scorers: One per layer asked for.
        significance: For each of these the significance of every real token of the questions held out, float32
            [tokens].
        losses: Mean loss of each layer on the questions held out.
        windows: Windows that were read to fit on, each time counted.
    """

    scorers: Mapping[int, Scorer]
    significance: Mapping[int, npt.NDArray[np.float32]]
    losses: Mapping[int, float]
    windows: int


def fit_scorers(
    bundle: Bundle,
    examples: Sequence[Example],
    layers: Sequence[int],
    *,
    seconds: float,
    most_passes: int,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Fit a scorer for each of some layers to the start and end probabilities of the bundle itself.

    Args:
        bundle: A bundle; its graph is run at full length and stays as it is.
        examples: Questions with their contexts, at least two; those that the model cannot read are skipped.
            Answers are not looked at.
        layers: Layers that get a scorer.
        seconds: Most time to spend.
        most_passes: Most times to see each question.
        seed: Decides the order of the questions and the scorers' first weights.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        DataError: The model can read none of the questions.
        InferenceError: OpenVINO failed.
    """
    stay_within_quota()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    shuffled = [examples[i] for i in random.permutation(len(examples))]
    count = min(HELD_OUT, -(-len(examples) // 10))
    windowing = Windowing.of(bundle)
    held_out, fitting = (batches_by_length(part, BATCH_SIZE) for part in (shuffled[:count], shuffled[count:]))
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
            if done == 1 and (seen or step >= steps):  # something at least, however short the time
                break
            if not (windows := windowing.windows(batch)):
                continue
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (1 - done)
            recent.append(read(windows))
            for states in (recent[-1], *(recent[i] for i in random.integers(len(recent), size=REPLAYS))):
                optimizer.zero_grad()
                torch.stack(list(losses(scorers, states).values())).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            seen += len(windows)
    judged = [judge(scorers, read(windows)) for batch in held_out if (windows := windowing.windows(batch))]
    if not seen or not judged:
        raise windowing.refuse_all("the questions to fit on")
    return Fit(
        scorers,
        significance={layer: np.concatenate([significance[layer] for significance, _ in judged]) for layer in layers},
        losses={layer: float(np.mean([of_layer[layer] for _, of_layer in judged])) for layer in layers},
        windows=seen,
    )


def sample_significance(
    bundle: Bundle, examples: Sequence[Example], scorers: Mapping[int, Scorer], *, seed: int
) -> dict[int, npt.NDArray[np.float32]]:
    """The significance that scorers give to every real token of some of the questions, float32 [tokens] by layer.

    Args:
        bundle: A bundle; its graph is run at full length.
        examples: Questions with their contexts; those that the model cannot read are skipped.
        scorers: Scorers by layer.
        seed: Decides which questions are taken.

    Raises:
        DataError: The model can read none of the questions.
        InferenceError: OpenVINO failed.
    """
    chosen = [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))[:HELD_OUT]]
    windowing, read = Windowing.of(bundle), StateReader(bundle, tuple(scorers))
    judged = [
        judge(scorers, read(windows))[0]
        for batch in batches_by_length(chosen, BATCH_SIZE)
        if (windows := windowing.windows(batch))
    ]
    if not judged:
        raise windowing.refuse_all("the questions to take thresholds from")
    return {layer: np.concatenate([significance[layer] for significance in judged]) for layer in scorers}


def _endless(batches: Sequence[list[Example]], random: np.random.Generator) -> Iterator[list[Example]]:
    while True:
        for index in random.permutation(len(batches)):
            yield batches[index]


def _logits(scorers: Mapping[int, Scorer], states: States) -> dict[int, Tensor]:
    question, real = torch.from_numpy(states.question), torch.from_numpy(states.real)
    return {
        layer: scorer.logits(torch.from_numpy(states.by_layer[layer]), question, real)
        for layer, scorer in scorers.items()
    }


def losses(
    scorers: Mapping[int, Scorer],
    states: States,
    *,
    widened_by: int = WIDENED_BY,
    weight_of_kept: float = WEIGHT_OF_KEPT,
) -> dict[int, Tensor]:
    """Binary cross-entropy of each layer over the tokens of the contexts; those of the question are kept anyway."""
    context = torch.from_numpy(states.real - states.question)
    logits = torch.from_numpy(states.start_logits), torch.from_numpy(states.end_logits)
    target = worth_keeping(*logits, context, widened_by)
    weight = torch.tensor(weight_of_kept)
    return {
        layer: (
            functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight) * context
        ).sum()
        / context.sum()
        for layer, logits in _logits(scorers, states).items()
    }


def worth_keeping(start_logits: Tensor, end_logits: Tensor, context: Tensor, widened_by: int = WIDENED_BY) -> Tensor:
    """For each token [B, L] the probability, 0 to 1, that the model's answer starts or ends near it.

    Args:
        start_logits: Of the model, [B, L].
        end_logits: Likewise.
        context: 0 for tokens that no answer is made of, [B, L].
        widened_by: How many tokens away is near.
    """
    start, end = (logits.masked_fill(context == 0, -torch.inf).softmax(1) for logits in (start_logits, end_logits))
    near = start.new_ones(1, 1, 2 * widened_by + 1)
    return functional.conv1d((start + end)[:, None], near, padding=widened_by)[:, 0].clamp(0, 1)


@torch.no_grad()
def judge(scorers: Mapping[int, Scorer], states: States) -> tuple[dict[int, npt.NDArray[np.float32]], dict[int, float]]:
    """By layer the significance of the real tokens of a batch, and the mean loss."""
    real = states.real > 0
    significance = {
        layer: (logits.sigmoid().numpy() + states.question)[real] for layer, logits in _logits(scorers, states).items()
    }
    return significance, {layer: float(loss) for layer, loss in losses(scorers, states).items()}
