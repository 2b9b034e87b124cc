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
    for name, named in measured.items():
        print(name, named.measured)


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
        "latency_p50_ms": round(cast(float, result.latency_p50_ms), 2),
        "latency_p95_ms": round(cast(float, result.latency_p95_ms), 2),
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
