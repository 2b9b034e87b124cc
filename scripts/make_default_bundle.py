"""Make the bundle that is shipped inside the package, with the figures of its length configurations.

    python scripts/make_default_bundle.py CHECKPOINT DATA

CHECKPOINT is the folder of the MiniLM checkpoint, DATA one with squad-style-train.json (INT8 ranges) and
squad-report.json (figures; nothing is chosen on it). Needs a quiet machine: it measures latencies.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from dynamic_tinybert.export import export_model
from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.bundle import open_bundle, write_manifest
from dynamic_tinybert.runtime.evaluation import Evaluation, evaluate
from dynamic_tinybert.runtime.squad import Example, read_squad

README = Path(__file__).parents[1] / "README.md"
TARGET = Path(__file__).parents[1] / "runtime" / "default_bundle"
SOURCE = "MiniLM-L6-H384 (sentence-transformers/all-MiniLM-L6-v2), fine-tuned for question answering"
LOSSY = 1.0  # F1
NUM_THREADS = 2

# Attention significance on a checkpoint that was not trained for it; chosen on squad-search.json.
LENGTH_CONFIGS = {
    "attention-1.1x": (1, 1, 1, 1, 1, 0.1),
    "attention-1.2x": (1, 1, 1, 1, 0.5, 0.2),
    "attention-1.3x": (1, 1, 1, 1, 0.2, 0.1),
    "attention-1.4x": (1, 1, 0.9, 0.7, 0.3, 0.12),
    "attention-1.6x": (1, 0.9, 0.7, 0.5, 0.32, 0.15),
}

CARD = """---
license: cc-by-sa-4.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
pipeline_tag: question-answering
library_name: dynamic-tinybert
---
# MiniLM-L6-H384 for extractive question answering, INT8, length-adaptive

The default bundle of dynamic-tinybert: six layers, hidden 384, 12 heads, 22.6 M parameters, English, uncased.

- **Base**: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
- **Fine-tuned** for one epoch, windows of 384 tokens sharing 128, AdamW 1.2e-4 with linear decay, batch 24, no
  dropout, without any token dropping, on 43,291 questions of SQuAD v1.1 train articles (CC BY-SA 4.0) and SQuADShifts
  new-wiki, reddit and amazon reviews (CC BY 4.0), on QAMR (MIT), and on a subset of Natural Questions with oracle
  paragraphs (CC BY-SA 3.0). No question of SQuAD dev.
- **Quantised** to INT8 by Intel Neural Compressor (SmoothQuant, static), embeddings INT8, QA head FP32.
- **Licence**: CC BY-SA 4.0, as its training data asks.

It is not a strong reader: one epoch on about half of SQuAD's size. The length configurations other than `full` drop
tokens by the attention that they receive, for which this checkpoint was not trained; `dynamic_tinybert.json` says
what each costs in F1.
"""


def main(checkpoint: Path, data: Path) -> None:
    """Export, measure each length configuration, and write the figures into the manifest."""
    ranges = data / "squad-style-train.json"
    export_model(checkpoint, TARGET, calibration_data=ranges, length_configs=LENGTH_CONFIGS, force=True, say=print)
    (TARGET / "README.md").write_text(CARD, encoding="utf-8")
    bundle = open_bundle(TARGET)
    examples = read_squad(data / "squad-report.json", require_answers=True)
    int8 = _evaluations(TARGET, examples, batch_size=1)
    with TemporaryDirectory() as folder:
        export_model(checkpoint, Path(folder, "fp32"), precision="fp32", length_configs=LENGTH_CONFIGS)
        fp32 = _evaluations(Path(folder, "fp32"), examples, batch_size=8)
    about = {"num_threads": NUM_THREADS, "data": f"squad-report.json, {len(examples)} questions", "cpu": cpu.name()}
    measured = {
        name: replace(named, measured=_figures(int8[name], int8["full"], fp32[name]) | about)
        for name, named in bundle.length_configs.items()
    }
    write_manifest(
        TARGET,
        significance=bundle.significance,
        length_configs=measured,
        quantization=bundle.quantization,
        versions=bundle.versions,
        source={"model": SOURCE, "license": "cc-by-sa-4.0"},
    )
    write_table()


def write_table() -> None:
    """Put the figures of the bundle into the README."""
    bundle = open_bundle(TARGET)
    figures_shown = ("MACs, x fewer", "F1", "F1 against `full`", "F1 against FP32", "p50 ms")
    rows = [("Length configuration", "Keep ratios", *figures_shown, ""), ("---", "---", *["---:"] * 5, "---")]
    for name, named in bundle.length_configs.items():
        figures = dict(named.measured or {})
        rows.append(
            (
                f"`{name}`",
                ", ".join(f"{ratio:g}" for ratio in named.config.keep_ratios),
                f"{figures['macs_fewer']:.2f}",
                f"{figures['f1']:.2f}",
                "" if name == "full" else _interval(figures["f1_against_full"]),
                _interval(figures["f1_against_fp32"]),
                f"{figures['latency_p50_ms']:.1f}",
                "lossy" if figures["lossy"] else "",
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"{figures['data']} (SQuAD v1.1 dev, real lengths, nothing padded to 384; configurations were chosen on other "
        f"articles); time of a question from text to answer, {figures['cpu']}, {figures['num_threads']} threads. "
        "In brackets: 95 % intervals by paired bootstrap. Made by `scripts/make_default_bundle.py`.",
    ]
    begin, end = "<!-- table: default bundle -->", "<!-- end of table -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    README.write_text("\n".join([before + begin, *lines, end]) + rest.partition(end)[2], encoding="utf-8")


def _interval(difference: Sequence[float]) -> str:
    mean, low, high = difference
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _evaluations(bundle: Path, examples: Sequence[Example], batch_size: int) -> dict[str, Evaluation]:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=NUM_THREADS)
    return {
        name: evaluate(model, examples, length_config=name, batch_size=batch_size, progress=True)
        for name in model.length_configs
    }


def _figures(result: Evaluation, full: Evaluation, fp32: Evaluation) -> dict[str, object]:
    against_full = paired_bootstrap(result.question_f1, full.question_f1)
    against_fp32 = paired_bootstrap(result.question_f1, fp32.question_f1)
    return {
        "f1": round(result.f1, 2),
        "exact_match": round(result.exact_match, 2),
        "f1_against_full": [round(value, 2) for value in against_full],  # mean, 95 % interval
        "f1_against_fp32": [round(value, 2) for value in against_fp32],
        "lossy": against_full[0] < -LOSSY,
        "macs": round(result.mean_macs),
        "macs_fewer": round(full.mean_macs / result.mean_macs, 3),
        "mean_kept_tokens": [round(value, 1) for value in result.mean_kept],
        "latency_p50_ms": round(cast(float, result.latency_ms(50)), 2),
        "latency_p95_ms": round(cast(float, result.latency_ms(95)), 2),
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
