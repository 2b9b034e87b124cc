"""Learnt significance of a calibration: fitted once, and read from the work folder when a run is resumed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from dynamic_tinybert.modeling.scorer import Scorer, load_scorers, save_scorers, with_context_rule
from dynamic_tinybert.modeling.tasks import model_task
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.bundles.files import SCORERS
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.encoder.scorer import ruled_layers
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors

from .fitting import fit_scorers, sample_significance
from .thresholds import SignificanceSample

_SAMPLE = "sample.safetensors"
_ENOUGH_EXAMPLES = 90_000
_MOST_PASSES = 10


@dataclass(frozen=True)
class LearntSignificance:
    """Scorers with their significance on a sample.

    Attributes:
        scorers: The file of the scorers.
        sample: The significance that they give to some examples that they were not fitted on.
        line: How the scorers were made, for messages.
    """

    scorers: Path
    sample: SignificanceSample
    line: str


def fit_or_load_scorers(
    bundle: Bundle,
    examples: Sequence[Any],
    folder: Path,
    seconds: float,
    seed: int,
    *,
    steps: int | None = None,
    trained: bool = False,
) -> LearntSignificance:
    """Fit scorers for all layers but the last two, or take those of an interrupted run from `folder`.

    So little is left to compute after the last two layers select that a scorer there costs more than it saves. For
    tasks that have the context rule, the last layer but one gets it instead; it drops the words of the question.

    Args:
        bundle: The bundle.
        examples: Examples of its task to fit on.
        folder: Folder for the scorers; it appears complete or not at all.
        seconds: Time to spend on fitting, unless `steps` is given.
        seed: Seed of the fit.
        steps: Number of steps of the fit.
        trained: Take the scorers of the bundle, which were trained with its model, instead of fitting new ones.

    Raises:
        BundleFormatError: Scorers cannot be fitted, because no PyTorch model can be made of the bundle's graph.
        InvalidInputError: `trained` is set, but the bundle has no scorers.
    """
    num_layers = bundle.shape.num_layers
    line = "Using the scorers of the interrupted run"
    if not folder.is_dir():
        made = _trained(bundle, examples, seed) if trained else _fitted(bundle, examples, seconds, steps, seed)
        line = made.line
        partial = folder.with_name(f"{folder.name}.partial")
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            has_rule = model_task(bundle.task).context_rule
            save_scorers(with_context_rule(made.scorers, num_layers, has_rule=has_rule), partial / SCORERS)
            save_file({str(layer): values for layer, values in made.significance.items()}, partial / _SAMPLE)
            partial.rename(folder)
    sample = {int(layer): values for layer, values in load_file(folder / _SAMPLE).items()}
    rule_layer = next(iter(ruled_layers(load_scorer_tensors(folder / SCORERS))), None)
    return LearntSignificance(folder / SCORERS, SignificanceSample(sample, num_layers, rule_layer=rule_layer), line)


@dataclass(frozen=True)
class _Scorers:
    """Scorers, the significance that they give to a sample, by layer, and a line about how they were made."""

    scorers: Mapping[int, Scorer]
    significance: Mapping[int, npt.NDArray[np.float32]]
    line: str


def _trained(bundle: Bundle, examples: Sequence[Any], seed: int) -> _Scorers:
    if bundle.scorers is None:
        raise InvalidInputError(
            f"{bundle.path} has no scorers that were trained with its model; fit some (learnt), or export a "
            "checkpoint that was trained with scorers"
        )
    scorers = load_scorers(bundle.scorers)
    significance = sample_significance(bundle, examples, scorers, seed=seed)
    return _Scorers(scorers, significance, f"Took the trained scorers of layers {', '.join(map(str, scorers))}")


def _fitted(bundle: Bundle, examples: Sequence[Any], seconds: float, steps: int | None, seed: int) -> _Scorers:
    layers = range(max(1, bundle.shape.num_layers - 2))
    fit = fit_scorers(
        bundle,
        examples,
        layers,
        seconds=seconds,
        steps=steps,
        most_passes=min(_MOST_PASSES, max(1, _ENOUGH_EXAMPLES // len(examples))),
        seed=seed,
        progress=True,
    )
    losses = ", ".join(f"{loss:.2f}" for loss in fit.losses.values())
    line = f"Fitted scorers of layers 0 to {layers[-1]} on {fit.windows} windows; held-out losses: {losses}"
    return _Scorers(fit.scorers, fit.significance, line)
