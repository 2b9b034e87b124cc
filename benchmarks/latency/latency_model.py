"""How well does the latency model predict configurations that it was not fitted on?

    python -m benchmarks.latency.latency_model BUNDLE SQUAD.json [--threads N]

It is fitted on a dozen random length configurations, in which between none and all of the layers select. Ten others are
predicted and measured. With learnt significance, thresholds are set so that random shares of the tokens are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dynamic_tinybert.calibration.search.latency import measure_latency, spread_by_length
from dynamic_tinybert.calibration.search.latency_fitting import fit_latency_model
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.states import StateReader
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling import load_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window

from benchmarks.common import argument_parser

Shares = tuple[float, ...]
ToConfig = Callable[[Shares], LengthConfig]


def random_shares(generator: np.random.Generator, layers: Sequence[int], selecting: int, num_layers: int) -> Shares:
    """The share of the tokens that each layer passes on; `selecting` of `layers`, chosen at random, drop some."""
    chosen = generator.choice(layers, selecting, replace=False)
    factors = [generator.uniform(0.4, 0.95) if layer in chosen else 1.0 for layer in range(num_layers)]
    return tuple(np.cumprod(factors).tolist())


def by_thresholds(bundle: Bundle, windows: Sequence[Window]) -> tuple[list[int], ToConfig]:
    """The layers with a scorer, and a function that turns shares of the tokens into thresholds."""
    assert bundle.scorers
    scorers = load_scorers(bundle.scorers)
    read = StateReader(bundle, scorers)
    significance = defaultdict(list)
    for window in windows:
        states = read([window])
        for layer, scorer in scorers.items():
            of_layer = (states.by_layer[layer], states.protected, states.real)
            with torch.inference_mode():
                significance[layer].append(scorer(*map(torch.from_numpy, of_layer))[0].numpy())
    joined = {layer: np.concatenate(values) for layer, values in significance.items()}
    sample = SignificanceSample(joined, bundle.shape.num_layers)
    return list(scorers), lambda shares: sample.length_config(Schedule(shares))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle")
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fitted", type=int, default=12, help="configurations to fit on")
    parser.add_argument("--predicted", type=int, default=10, help="other configurations to predict")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    model = LengthAdaptiveModel.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    windows = spread_by_length(Windowing.of(model).windows(read_squad(arguments.data)), arguments.windows)
    num_layers = model.bundle.shape.num_layers
    layers: Sequence[int] = range(num_layers)
    to_config: ToConfig = LengthConfig
    if model.bundle.significance == "learnt":
        layers, to_config = by_thresholds(model.bundle, windows)
    generator = np.random.default_rng(arguments.seed)

    def configs(count: int) -> list[LengthConfig]:
        """Random configurations, in which the number of selecting layers rises from none to all."""
        selecting = np.linspace(0, len(layers), count).round().astype(int)
        return [to_config(random_shares(generator, layers, n, num_layers)) for n in selecting]

    fitted = fit_latency_model(measure_latency(model, configs(arguments.fitted), windows, repeats=arguments.repeats))
    table = measure_latency(model, configs(arguments.predicted), windows, repeats=arguments.repeats)

    print(f"{cpu.name()}, {arguments.threads} threads, {len(windows)} windows of {arguments.data}")
    print(
        f"fitted on {arguments.fitted} configurations: "
        + ", ".join(f"{k} {v:.3g}" for k, v in fitted.coefficients.items())
    )
    print(f"median error of a configuration left out: {100 * fitted.median_error:.1f} %\n")
    print(f"{'predicted ms':>12} {'measured ms':>12} {'error':>8}   mean kept tokens")
    errors = []
    for config, kept, ms in zip(table.configs, table.kept, table.ms, strict=True):
        predicted = fitted.predict(config, table.lengths, kept).mean()
        errors.append(predicted / ms.mean() - 1)
        tokens = " ".join(f"{mean:.0f}" for mean in kept.mean(0))
        print(f"{predicted:12.2f} {ms.mean():12.2f} {100 * errors[-1]:+7.1f}%   {tokens}")
    print(f"median error: {100 * np.median(np.abs(errors)):.1f} %")


if __name__ == "__main__":
    main()
