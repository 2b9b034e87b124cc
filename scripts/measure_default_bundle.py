"""Measure the length configurations of the embedded bundle anew on this CPU, and write the README's table.

    python scripts/measure_default_bundle.py DATA.json

DATA is a SQuAD file on which nothing was chosen, squad-confirm.json for the README. The length configurations stay as
they are; their figures in the bundle's manifest are replaced. It takes a minute or two on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamic_tinybert.calibration.figures import measured_figures
from dynamic_tinybert.calibration.measurements import measure_for_report
from dynamic_tinybert.calibration.recalibrated import replace_length_configs
from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.tasks.question_answering.example import article_of
from dynamic_tinybert.runtime.tasks.question_answering.gold_answers import gold_answers
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "runtime" / "default_bundle"
README = ROOT / "README.md"
NUM_THREADS = 2


def main(data: Path) -> None:
    """Measure, and write manifest and table."""
    bundle = open_bundle(TARGET)
    model = LengthAdaptiveModel(bundle, ov_config={"INFERENCE_NUM_THREADS": NUM_THREADS})
    examples = read_squad(data, require_answers=True)
    configs = {name: named.config for name, named in bundle.length_configs.items()}
    runs = measure_for_report(gold_answers(model, examples), model, configs)
    groups = list(map(article_of, examples))
    circumstances = {
        "scored_by": "answers",
        "num_threads": NUM_THREADS,
        "data": f"{data.name}, {len(examples)} questions",
        "cpu": cpu.name(),
    }
    measured = {}
    for name, named in bundle.length_configs.items():
        figures = measured_figures(runs[name], runs["full"], ("f1", "exact_match"), groups)
        kept = {key: value for key, value in (named.measured or {}).items() if key == "f1_against_fp32"}
        measured[name] = replace(named, measured={**figures, **circumstances, **kept})
    replace_length_configs(bundle, measured)
    write_table()


def write_table() -> None:
    """Put the figures of the bundle into the README."""
    bundle = open_bundle(TARGET)
    shown = ("MACs, x fewer", "F1", "F1 against `full`", "p50 ms", "p95 ms", "longest ms")
    rows = [("Length configuration", "Mean tokens kept", *shown), ("---", "---", *["---:"] * len(shown))]
    for name, named in bundle.length_configs.items():
        figures = dict(named.measured or {})
        rows.append(
            (
                f"`{name}`",
                ", ".join(f"{tokens:.0f}" for tokens in figures["mean_kept_tokens"]),
                f"{figures['macs_fewer']:.2f}",
                f"{figures['f1']:.2f}",
                "" if name == "full" else _intervals(figures),
                *(f"{figures[f'latency_{which}_ms']:.1f}" for which in ("p50", "p95", "max")),
            )
        )
    against_fp32 = _interval((bundle.length_configs["full"].measured or {})["f1_against_fp32"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"{figures['data']} (SQuAD v1.1 dev, real lengths, nothing padded to 384; configurations were chosen on other "
        f"articles); time of a question from text to answer, {figures['cpu']}, {figures['num_threads']} threads. "
        f"In brackets: 95 % intervals by paired bootstrap, over questions and over {figures['num_groups']} articles. "
        f"`full` against FP32 on squad-report.json: {against_fp32} F1. Written by `scripts/measure_default_bundle.py`.",
    ]
    begin, end = "<!-- table: default bundle -->", "<!-- end of table -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    README.write_text("\n".join([before + begin, *lines, end]) + rest.partition(end)[2], encoding="utf-8")


def _intervals(figures: Mapping[str, Any]) -> str:
    _, low, high = figures["f1_against_full_over_groups"]
    return f"{_interval(figures['f1_against_full'])} [{low:+.2f}, {high:+.2f}]"


def _interval(difference: Sequence[float]) -> str:
    mean, low, high = difference
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA.json")
    main(**vars(parser.parse_args()))
