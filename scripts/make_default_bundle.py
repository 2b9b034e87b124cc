"""Build the bundle that is shipped in the package: exported with tuned INT8, calibrated, compared with FP32.

    python scripts/make_default_bundle.py CHECKPOINT DATA [--scorers-only]

CHECKPOINT is the result of `dynamic-tinybert train --objective front` on the MiniLM checkpoint and scorers fitted for
it, or on the bundle's own model (`checkpoint_of_bundle.py`). DATA is a folder with squad-style-train.json (for INT8
ranges and thresholds), squad-search.json and squad-report.json (to choose on) and squad-confirm.json (to report on).
With `--scorers-only`, CHECKPOINT is the result of `--objective scorers` on the bundle's own model, and the bundle keeps
its graph to the bit. This takes about 40 minutes on 2 cores with VNNI, twice as long without, and needs an idle
machine, because it measures latencies. The new bundle is made in build/ and replaces the old one at the end; an
interrupted run resumes its calibration.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dynamic_tinybert.calibration import calibrate
from dynamic_tinybert.calibration.recalibrated import replace_length_configs, write_recalibrated
from dynamic_tinybert.calibration.report import write_calibration_report
from dynamic_tinybert.export import export_model
from dynamic_tinybert.modeling.bundle_model import weights_of_bundle
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.bundles.files import SCORERS
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.publish import publishing
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from measure_default_bundle import NUM_THREADS, TARGET, write_table

SOURCE = {
    "model": "MiniLM-L6-H384 (sentence-transformers/all-MiniLM-L6-v2), fine-tuned for question answering",
    "license": "cc-by-sa-4.0",
}
REPORT = Path(__file__).parents[1] / "docs" / "default-bundle.html"
WORK = Path(__file__).parents[1] / "build" / "default_bundle"
BUDGET_MINUTES = 27 if extension_library.worth_fusing() else 50  # without our INT8 ops every window takes longer
SPLITS = ("style-train", "search", "report", "confirm")

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
- **Trained for token dropping** by `dynamic-tinybert train --objective front` on the same questions: 5,000
  steps of 16 windows (1.8 epochs), AdamW 5e-5 with linear decay, no dropout, together with scorers of learnt
  significance that had been fitted to the model beforehand.
- **Quantised** to INT8 by Intel Neural Compressor (SmoothQuant, static), embeddings INT8, QA head FP32.
- **Scorers retrained** for the quantised weights by `dynamic-tinybert train --objective scorers` on the first 12,000
  of these questions: 1,000 steps of 16 windows, AdamW 1e-3 with linear decay; the scorers of the first three layers
  also learn how important each token is to later layers.
- **Licence**: CC BY-SA 4.0, as its training data requires.
- **Calibrated** by `dynamic-tinybert calibrate --significance trained`: length configurations chosen on some
  articles of SQuAD v1.1 dev, their figures measured on 12 others.

It never abstains: every question that it was trained on has an answer in its text, so its empty answer
(`handle_impossible_answer`) is meaningless.

It is not a strong reader: it was trained for less than three epochs on data of about half of SQuAD's size.
`dynamic_tinybert.json` records what each length configuration costs in F1.
"""


def main() -> None:
    """Export, calibrate, report, compare with FP32, and write the README's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--scorers-only", action="store_true")
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint
    ranges, search, more, report = (arguments.data / f"squad-{name}.json" for name in SPLITS)
    if arguments.scorers_only:
        give_scorers(checkpoint)
    else:
        export_model(checkpoint, WORK, calibration_data=ranges, validation=search, force=True, say=print)
    (WORK / "README.md").write_text(CARD, encoding="utf-8")
    choosing = WORK.with_name("choosing.json")
    choosing.write_text(json.dumps({"data": [article for file in (search, more) for article in articles(file)]}))
    calibration = calibrate(
        WORK,
        ranges,
        validation=choosing,
        test=report,
        significance="trained",
        budget_minutes=BUDGET_MINUTES,
        resume=True,
        num_threads=NUM_THREADS,
        say=print,
    )
    if arguments.scorers_only:
        against_fp32 = (open_bundle(TARGET).length_configs["full"].measured or {})["f1_against_fp32"]
    else:
        against_fp32 = compare_with_fp32(checkpoint, more)
    write_about_model(against_fp32)  # the name appears in the report's title
    write_calibration_report(calibration, REPORT, num_threads=NUM_THREADS)
    with publishing(TARGET, force=True) as place:
        shutil.copytree(WORK, place, dirs_exist_ok=True)
    shutil.rmtree(WORK)
    choosing.unlink()
    write_table()


def articles(file: Path) -> list[object]:
    """The articles of a file in the format of SQuAD."""
    content: list[object] = json.loads(file.read_text(encoding="utf-8"))["data"]
    return content


def give_scorers(checkpoint: Path) -> None:
    """Write the bundle with the scorers of a checkpoint; until it is calibrated, it has `full` alone."""
    source, trained = open_bundle(TARGET), load_checkpoint(checkpoint).model
    own = weights_of_bundle(source)
    same = (np.allclose(own[name], weight.numpy(), rtol=1e-5) for name, weight in trained.state_dict().items())
    if not all(same):
        raise SystemExit(
            f"{checkpoint} does not have the weights of the bundle's model; run without --scorers-only to export it"
        )
    full = {"full": NamedLengthConfig(LengthConfig.full(source.shape.num_layers))}
    with publishing(WORK, force=True) as folder:
        write_recalibrated(source, folder, checkpoint / SCORERS, full)


def compare_with_fp32(checkpoint: Path, data: Path) -> list[float]:
    """The change of F1 by INT8 at full length, with its 95 % interval."""
    examples = read_squad(data, require_answers=True)
    with TemporaryDirectory() as folder:
        export_model(checkpoint, Path(folder, "fp32"), precision="fp32")
        int8, fp32 = (
            evaluate(
                LengthAdaptiveModel.from_pretrained(place, num_threads=NUM_THREADS),
                examples,
                length_config="full",
                batch_size=8,
                progress=True,
            )
            for place in (WORK, Path(folder, "fp32"))
        )
    return [round(value, 2) for value in paired_bootstrap(int8.question_f1, fp32.question_f1)]


def write_about_model(against_fp32: Sequence[float]) -> None:
    """Record in the manifest where the model comes from and what INT8 costs."""
    bundle = open_bundle(WORK)
    full = bundle.length_configs["full"]
    measured = replace(full, measured={**(full.measured or {}), "f1_against_fp32": list(against_fp32)})
    replace_length_configs(bundle, {**bundle.length_configs, "full": measured}, SOURCE)


if __name__ == "__main__":
    main()
