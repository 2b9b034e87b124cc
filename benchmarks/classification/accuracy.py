"""What INT8 and dropped tokens cost a classifier, in the score of labelled texts, and what they save.

    python -m benchmarks.classification.accuracy FP32_BUNDLE BUNDLE DATA.tsv

Both bundles were exported from one checkpoint, the first with `--precision fp32`. DATA has labels that nothing was
chosen on. The score is accuracy for classes; the columns compare with FP32 at `full`, with paired intervals.
"""

from __future__ import annotations

from pathlib import Path

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.sequence_classification.evaluation import Evaluation
from dynamic_tinybert.runtime.tasks.sequence_classification.measure import TextMeasure

from benchmarks.common import argument_parser, mean_change, measured_on


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("fp32", type=Path, help="bundle")
    parser.add_argument("bundle", type=Path, help="measured at each of its length configurations")
    parser.add_argument("data", type=Path, help="labelled texts")
    parser.add_argument("--texts", type=int, help="read only this many")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    fp32 = LengthAdaptiveModel.from_pretrained(arguments.fp32)
    model = LengthAdaptiveModel.from_pretrained(arguments.bundle)
    measure = TextMeasure.of(model.bundle)
    read = measure.read(arguments.data, strict=False, limit=arguments.texts)
    if any(example.label is None for example in read.examples) or measure.labels.kind == "score":
        raise DataError(f"{arguments.data} needs a class for each text")
    print(f"{measured_on()}; {len(read.examples)} texts of {arguments.data.name}", *read.lines, sep="\n")
    print("| Model | Configuration | score | against FP32 | kept tokens, mean | MACs, x fewer |")
    print("| --- | --- |" + " ---: |" * 4)
    scoring = measure.scoring(fp32, read.examples)
    full: Evaluation | None = None
    for kind, own in (("FP32", fp32), (model.bundle.quantization["precision"].upper(), model)):
        for name in own.length_configs if own is model else ["full"]:
            result = scoring.evaluate(own, name, batch_size=arguments.batch_size)
            full = full or result
            (score,) = result.means.values()
            change = mean_change(result.scores, full.scores)
            kept = sum(result.mean_kept) / len(result.mean_kept)
            row = f"{score:.2f} | {change} | {kept:.1f} | {full.mean_macs / result.mean_macs:.2f}"
            print(f"| {kind} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
