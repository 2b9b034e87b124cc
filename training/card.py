"""The model card of a training's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dynamic_tinybert.runtime.bootstrap import paired_bootstrap

from .measuring import Point

_TEXT = """\
---
pipeline_tag: question-answering
library_name: transformers
base_model: {base}
---
# {base}, {objective}

An ordinary `BertForQuestionAnswering` folder, trained by `dynamic-tinybert train`. {scorers}

- **Model**: {base}{layers}.
- **Data**: {data}.
- **Objective**: `{objective}`{teacher}.
- **Steps**: {steps} of {batch_size} windows, learning rate {learning_rate:g}, seed {seed}.
- **Software**: {versions}.

The licences of the base model and of the data hold for this model, too.

`metrics.jsonl` has the losses of each step. `dynamic-tinybert export` and `calibrate` make a bundle of this folder.
"""

_SCORERS = (
    "`significance.safetensors` holds scorers of learnt significance that were trained with it; `calibrate "
    "--significance trained` finds length configurations for them."
)


def model_card(facts: Mapping[str, object], fronts: Mapping[str, Sequence[Point]], scored: str) -> str:
    """Text of README.md.

    Args:
        facts: Values for the text's placeholders.
        fronts: What was measured before and after, empty if nothing was.
        scored: Which questions that was measured on.
    """
    text = _TEXT.format(**{**facts, "scorers": _SCORERS if facts["scorers"] else ""})
    if not fronts:
        return text
    before, after = fronts["before"], fronts["after"]
    change, low, high = paired_bootstrap(after[0].question_f1, before[0].question_f1)
    lines = [
        "",
        "## F1 and cost",
        "",
        f"On {scored}, in PyTorch, real lengths. `full` after against before: {change:+.2f} F1 [{low:+.2f}, "
        f"{high:+.2f}] (95 % interval, paired bootstrap). A number names the share of tokens that the last selecting "
        "layer keeps.",
        "",
        "![F1 against MACs](front.svg)",
        "",
        "| | before: F1 | MACs, x fewer | after: F1 | MACs, x fewer | against its `full` |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    own = {point.name: point for point in before}
    for point in after:
        old = own.get(point.name)
        cells = ["", ""] if old is None else [f"{old.f1:.2f}", f"{before[0].macs / old.macs:.2f}"]
        loss = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*paired_bootstrap(point.question_f1, after[0].question_f1))
        cells += [f"{point.f1:.2f}", f"{before[0].macs / point.macs:.2f}", loss]
        lines.append(f"| {point.name} | {' | '.join(cells)} |")
    return text + "\n".join(lines) + "\n"


def name_of(source: str) -> str:
    """A Hub id, or the name of a local folder."""
    return Path(source).resolve().name if Path(source).exists() else source
