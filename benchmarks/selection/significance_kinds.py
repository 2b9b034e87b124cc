"""F1 and latency of a calibrated bundle's length configurations, compared with published and simple ones.

    python -m benchmarks.selection.significance_kinds BUNDLE REPORT.json

Both attention significance and learnt significance run with the published configurations as keep ratios, with equal
ratios in all layers, and with (1, .9, .7, .5, .3, .12). F1 is measured on all questions of the file. Times are those of
the model's call on random windows: medians of the repeats, in which all configurations of both kinds take turns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.calibration.search.latency import executed_lengths, interleaved_ms, requests_of
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.encoder.scorer import ruled_layers
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, first_windows_of, mean_change, random_sample

RATIOS = {
    "315,251,242,159,142,33 of 384": tuple(n / 384 for n in (315, 251, 242, 159, 142, 33)),
    "269,253,252,202,104,34 of 384": tuple(n / 384 for n in (269, 253, 252, 202, 104, 34)),
    **{f"{ratio} in all layers": (ratio,) * 6 for ratio in (0.9, 0.75, 0.6, 0.5)},
    "1, .9, .7, .5, .3, .12": (1, 0.9, 0.7, 0.5, 0.3, 0.12),
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--windows", type=int, default=48, help="number of windows to time")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    examples = read_squad(arguments.report, require_answers=True)
    bundle = open_bundle(arguments.bundle)
    with TemporaryDirectory() as place:
        full = LengthConfig.full(bundle.shape.num_layers)
        attention_bundle = write_recalibrated(bundle, Path(place), None, {"full": NamedLengthConfig(full)})
        learnt, attention = (LengthAdaptiveModel(b, max_compiled=32) for b in (bundle, attention_bundle))
        scorers = load_scorer_tensors(bundle.scorers) if bundle.scorers else {}
        scored = scorers.keys() - ruled_layers(scorers)
        rows = [(learnt, "learnt, thresholds", name, named.config) for name, named in bundle.length_configs.items()]
        for model, kind in ((learnt, "learnt, ratios alone"), (attention, "attention, ratios")):
            for name, ratios in RATIOS.items():
                chosen_by = scored if model is learnt else range(len(ratios))
                rows.append((model, kind, name, LengthConfig(of_layers(ratios, chosen_by))))

        windows = first_windows_of(bundle, random_sample(examples, arguments.windows))
        for model, _, _, config in rows:
            executed_lengths(model, config, windows)  # compiles, and prepares the kernels of each length
        requests = [requests_of(model, windows)(config) for model, _, _, config in rows]
        times = interleaved_ms(requests, len(windows), repeats=arguments.repeats).mean(1)
        results = [
            evaluate(model, examples, length_config=config, batch_size=8, progress=True) for model, _, _, config in rows
        ]
    print(f"{len(examples)} questions of {arguments.report.name}, {cpu.name()}")
    print("| Significance | Configuration | F1 | against `full` | MACs, x fewer | ms | x faster |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (_, kind, name, _), result, ms in zip(rows, results, times, strict=True):
        change = mean_change(result.question_f1, results[0].question_f1)
        fewer = results[0].mean_macs / result.mean_macs
        print(f"| {kind} | {name} | {result.f1:.2f} | {change} | {fewer:.2f} | {ms:.2f} | {times[0] / ms:.2f} |")


def of_layers(ratios: Sequence[float], selecting: Collection[int]) -> tuple[float, ...]:
    """The ratios of the `selecting` layers; the others pass on what the layer before them did."""
    kept = 1.0
    return tuple(kept := ratio if layer in selecting else kept for layer, ratio in enumerate(ratios))


if __name__ == "__main__":
    main()
