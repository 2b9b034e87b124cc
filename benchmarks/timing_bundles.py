"""Write variants of a bundle whose time alone matters: random scorers, and attention's significance.

    python benchmarks/timing_bundles.py BUNDLE DATA.json OUTPUT

OUTPUT/learnt has a random scorer in every layer but the first and thresholds that keep stated shares of the tokens of
some questions of DATA, on average, and the same shares as keep ratios; OUTPUT/attention has the shares as keep ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.fitting import batches_by_length, readable_windows, significance_of
from dynamic_tinybert.calibration.significance.states import StateReader
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.runtime import LengthConfig
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

QUESTIONS = 64
SHARES = {  # of six layers; about 1.4, 1.8 and 2.2 times fewer MACs
    "mild": (1, 0.78, 0.78, 0.55, 0.55, 0.55),
    "middle": (1, 0.6, 0.6, 0.3, 0.3, 0.3),
    "hard": (1, 0.45, 0.45, 0.16, 0.16, 0.16),
}


def main(folder: str, data: str, output: str) -> None:
    torch.manual_seed(0)
    bundle = open_bundle(folder)
    ratios = {f"{name}-ratios": LengthConfig(shares) for name, shares in SHARES.items()}
    write(bundle, Path(output, "attention"), None, ratios)
    scorers = {layer: Scorer(bundle.shape.hidden_size) for layer in range(1, bundle.shape.num_layers)}
    sample = sampled(bundle, scorers, data)
    thresholds = {f"{name}-thresholds": sample.length_config(Schedule(shares)) for name, shares in SHARES.items()}
    with TemporaryDirectory() as place:
        save_scorers(scorers, Path(place, "scorers"))
        write(bundle, Path(output, "learnt"), Path(place, "scorers"), thresholds | ratios)


def sampled(bundle: Bundle, scorers: Mapping[int, Scorer], data: str) -> SignificanceSample:
    examples = read_squad(data)
    chosen = [examples[i] for i in np.random.default_rng(0).permutation(len(examples))[:QUESTIONS]]
    measure, read = measure_of(bundle), StateReader(bundle, tuple(scorers))
    batches = [readable_windows(measure, batch) for batch in batches_by_length(measure, chosen)]
    found = [significance_of(scorers, read(windows)) for windows in batches]
    values = {layer: np.concatenate([of_batch[layer] for of_batch in found]) for layer in scorers}
    return SignificanceSample(values, bundle.shape.num_layers)


def write(bundle: Bundle, folder: Path, scorers: Path | None, configs: Mapping[str, LengthConfig]) -> None:
    folder.mkdir(parents=True)
    every = {"full": LengthConfig.full(bundle.shape.num_layers), **configs}
    write_recalibrated(bundle, folder, scorers, {name: NamedLengthConfig(config) for name, config in every.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="BUNDLE")
    parser.add_argument("data")
    parser.add_argument("output")
    main(**vars(parser.parse_args()))
