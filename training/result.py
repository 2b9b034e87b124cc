"""Write the result of a training: a checkpoint with its model card, its losses and a plot of its fronts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.tasks.measure import Finding

from .front_meter import Point
from .objectives.base import Objective
from .plot import plot_fronts
from .saved_state import save_model

PACKAGES = ("dynamic-tinybert", "torch", "transformers")
"""Distributions whose versions are recorded in journals and model cards."""

_CARD = """\
---
pipeline_tag: {pipeline_tag}
library_name: transformers
base_model: {base}
---
# {base}, {objective}

An ordinary `{architecture}` folder, made by `dynamic-tinybert train`; `dynamic-tinybert export` and `calibrate` make
a bundle of it.{scorers}

- **Model**: {base}{layers}.
- **Data**: {data}.
- **Objective**: `{objective}`{teacher}.
- **Steps**: {steps} of {batch_size} windows, learning rate {learning_rate:g}, seed {seed}; their losses are in
  `metrics.jsonl`.
- **Software**: {versions}.

The licences of the base model and of the data apply to this model, too.
"""
_ABOUT_SCORERS = """ `significance.safetensors` holds scorers of learnt significance that were trained with
it: `calibrate --significance trained` finds length configurations for them."""
_FIGURES = """
## {metric} and cost

On {scored}, in PyTorch, at real lengths. After against before, `full` changed by {change:+.2f} {metric} [{low:+.2f},
{high:+.2f}]. A number names the share of the tokens that the last selecting layer keeps, before by {before}, after by
{after}. In brackets: 95 % intervals by paired bootstrap.

![{metric} against MACs](front.svg)

| Configuration | before: MACs, x fewer | {metric} | after: MACs, x fewer | {metric} | against its `full` |
| --- | ---: | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True)
class Training:
    """The result of a training.

    Attributes:
        path: Folder of the new checkpoint.
        losses: The parts of each step's loss by name.
        before: Quality and cost of the model before the training: `full`, then other length configurations. Empty
            without validation data.
        after: Quality and cost after the training.
        findings: Faults of the examples of the training data and the validation data.
        metric: The name of the metric that scores are of.
    """

    path: Path
    losses: Sequence[Mapping[str, float]]
    before: Sequence[Point]
    after: Sequence[Point]
    findings: Sequence[Finding] = ()
    metric: str = "score"


def write_result(folder: Path, objective: Objective, training: Training, facts: Mapping[str, object]) -> None:
    """Write all files of the new checkpoint except those of the tokenizer.

    Args:
        folder: The folder.
        objective: The objective with the trained model.
        training: The result.
        facts: Values for the placeholders of the model card.

    Raises:
        StorageError: A file could not be written.
    """
    save_model(objective, folder)
    metrics = "".join(json.dumps({"step": step, **losses}) + "\n" for step, losses in enumerate(training.losses, 1))
    card = _CARD.format(
        **facts,
        pipeline_tag=objective.task.pipeline_tag,
        architecture=type(objective.model).__name__,
        scorers=_ABOUT_SCORERS if objective.scorers() else "",
        steps=len(training.losses),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
    )
    if training.after:
        card += _figures(training, str(facts["scored"]))
        fronts = {"before": training.before, "after": training.after}
        plot_fronts(fronts, folder / "front.svg", metric=training.metric)
    with writing(folder):
        (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")


def name_of(source: str) -> str:
    """The source as other machines can read it: a Hub id unchanged, of a local folder only its name."""
    return Path(source).resolve().name if Path(source).exists() else source


def _figures(training: Training, scored: str) -> str:
    full_before, full = training.before[0], training.after[0]
    change, low, high = paired_bootstrap(full.scores, full_before.scores)
    own_before = {point.name: point for point in training.before}
    lines = []
    for point in training.after:
        before = own_before.get(point.name)
        loss = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*paired_bootstrap(point.scores, full.scores))
        cells = [
            point.name,
            *(["", ""] if before is None else [f"{full_before.macs / before.macs:.2f}", f"{before.score:.2f}"]),
            f"{full_before.macs / point.macs:.2f}",
            f"{point.score:.2f}",
            "" if point is full else loss,
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    guides = {"before": _guide(training.before), "after": _guide(training.after)}
    return _FIGURES.format(
        scored=scored, metric=training.metric, change=change, low=low, high=high, **guides
    ) + "".join(lines)


def _guide(front: Sequence[Point]) -> str:
    """What tokens are chosen by, in words."""
    learnt = any(threshold is not None for point in front for threshold in point.thresholds)
    return "scorers and thresholds" if learnt else "the attention received"
