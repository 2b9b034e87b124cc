"""Learnt significance of one calibration: fitted once, then read back by a run that goes on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load_file, save_file

from dynamic_tinybert.runtime.bundle import SCORERS, Bundle
from dynamic_tinybert.runtime.publish import writing
from dynamic_tinybert.runtime.squad import Example

from .fitting import fit_scorers
from .scorer import save_scorers
from .thresholds import SignificanceSample

_SAMPLE = "sample.safetensors"
_ENOUGH_QUESTIONS = 12_000
_MOST_PASSES = 10


def learnt_significance(
    bundle: Bundle, examples: Sequence[Example], folder: Path, seconds: float, seed: int
) -> tuple[Path, SignificanceSample, str]:
    """Fit scorers for all layers but the first and the last two, or take those of an interrupted run from `folder`.

    The first layer's attention has seen too little to tell what matters. Behind the last ones' selection so little is
    left to compute that it does not pay for the scorer.

    Args:
        bundle: The bundle.
        examples: Questions and contexts to fit on.
        folder: Where the scorers are kept; it appears whole or not at all.
        seconds: Time to spend on fitting.
        seed: Of the fit.

    Returns:
        The file of the scorers, the significance that they give to some questions that they were not fitted on,
        and a line that says what was done.
    """
    num_layers = bundle.shape.num_layers
    layers = range(1, max(2, num_layers - 2))
    done = "Scorers are there from the interrupted run"
    if not folder.is_dir():
        fit = fit_scorers(
            bundle,
            examples,
            layers,
            seconds=seconds,
            most_passes=min(_MOST_PASSES, max(1, _ENOUGH_QUESTIONS // len(examples))),
            seed=seed,
            progress=True,
        )
        losses = ", ".join(f"{loss:.2f}" for loss in fit.losses.values())
        done = f"Fitted scorers of layers 1 to {layers[-1]} on {fit.windows} windows; losses held out: {losses}"
        partial = folder.with_name(f"{folder.name}.partial")
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_scorers(fit.scorers, partial / SCORERS)
            save_file({str(layer): values for layer, values in fit.significance.items()}, partial / _SAMPLE)
            partial.rename(folder)
    sample = {int(layer): values for layer, values in load_file(folder / _SAMPLE).items()}
    return folder / SCORERS, SignificanceSample(sample, num_layers), done
