"""What a training leaves: a checkpoint with its model card, its losses and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.tasks.question_answering.findings import Finding

from .front_meter import Point
from .objectives.base import Objective
from .plot import plot_fronts
from .saved_state import save_model

PACKAGES = ("dynamic-tinybert", "torch", "transformers")
"""Distributions whose versions are recorded."""

_CARD = """\
---
pipeline_tag: question-answering
library_name: transformers
base_model: {base}
---
# {base}, {objective}

An ordinary `BertForQuestionAnswering` folder, made by `dynamic-tinybert train`; `dynamic-tinybert export` and
`calibrate` make a bundle of it.{scorers}

- **Model**: {base}{layers}.
- **Data**: {data}.
- **Objective**: `{objective}`{teacher}.
- **Steps**: {steps} of {batch_size} windows, learning rate {learning_rate:g}, seed {seed}; their losses are in
  `metrics.jsonl`.
- **Software**: {versions}.

The licences of the base model and of the data hold for this model, too.
"""
_ABOUT_SCORERS = """ `significance.safetensors` holds scorers of learnt significance
that were trained with it: `calibrate --significance trained` finds length configurations for them."""
_FIGURES = """
## F1 and cost

On {scored}, in PyTorch, at real lengths. After against before, `full` changed by {change:+.2f} F1 [{low:+.2f},
{high:+.2f}]. A number names the share of the tokens that the last selecting layer keeps, before by {before}, after by
{after}. In brackets: 95 % intervals by paired bootstrap.

![F1 against MACs](front.svg)

| Configuration | before: MACs, x fewer | F1 | after: MACs, x fewer | F1 | against its `full` |
| --- | ---: | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes:
        path: The new checkpoint.
        losses: The parts of the loss of each step, by name.
        before: What the model gave before, `full` first, then length configurations; empty without validation data.
        after: What it gives now.
        findings: What is wrong with questions of the data and the validation data.
    """

    path: Path
    losses: Sequence[Mapping[str, float]]
    before: Sequence[Point]
    after: Sequence[Point]
    findings: Sequence[Finding] = ()


def write_result(folder: Path, objective: Objective, training: Training, facts: Mapping[str, object]) -> None:
    """Write all but the tokenizer.

    Args:
        folder: Where to.
        objective: With the model.
        training: What it made.
        facts: What the model card says, by the names of its placeholders.

    Raises:
        StorageError: A file could not be written.
    """
    save_model(objective, folder)
    metrics = "".join(json.dumps({"step": step, **losses}) + "\n" for step, losses in enumerate(training.losses, 1))
    card = _CARD.format(
        **facts,
        scorers=_ABOUT_SCORERS if objective.scorers() else "",
        steps=len(training.losses),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
    )
    if training.after:
        card += _figures(training, str(facts["scored"]))
        plot_fronts({"before": training.before, "after": training.after}, folder / "front.svg")
    with writing(folder):
        (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")


def name_of(source: str) -> str:
    """A Hub id, or the name of a local folder: other machines have no such path."""
    return Path(source).resolve().name if Path(source).exists() else source


def _figures(training: Training, scored: str) -> str:
    full_before, full = training.before[0], training.after[0]
    change, low, high = paired_bootstrap(full.question_f1, full_before.question_f1)
    own_before = {point.name: point for point in training.before}
    lines = []
    for point in training.after:
        before = own_before.get(point.name)
        loss = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*paired_bootstrap(point.question_f1, full.question_f1))
        cells = [
            point.name,
            *(["", ""] if before is None else [f"{full_before.macs / before.macs:.2f}", f"{before.f1:.2f}"]),
            f"{full_before.macs / point.macs:.2f}",
            f"{point.f1:.2f}",
            "" if point is full else loss,
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    guides = {"before": _guide(training.before), "after": _guide(training.after)}
    return _FIGURES.format(scored=scored, change=change, low=low, high=high, **guides) + "".join(lines)


def _guide(front: Sequence[Point]) -> str:
    """By what tokens are chosen."""
    learnt = any(threshold is not None for point in front for threshold in point.thresholds)
    return "scorers and thresholds" if learnt else "the attention received"
