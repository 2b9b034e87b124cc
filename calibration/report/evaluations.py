"""The HTML report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dynamic_tinybert.calibration.data import shuffled
from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import Measure, Scored

from .contents import Latency, NamedResult, Point, Report, Spread
from .decomposition import decompose
from .length_gain import LengthGain, gain_by_length
from .page import write_report

_TIMED_WINDOWS = 32  # for the steps of the speedup: a random sample, in which each length has its natural weight
_REPEATS = 3


def write_evaluation_report(
    model: LengthAdaptiveModel,
    measure: Measure[Any],
    examples: Sequence[Any],
    evaluations: Mapping[str, Scored],
    path: str | Path,
    *,
    data: str,
    num_threads: int | None = None,
) -> None:
    """Write the page of an evaluation; first measure where the speed comes from, about a minute.

    Args:
        model: The model that was evaluated.
        measure: How it was evaluated.
        examples: The examples.
        evaluations: Evaluations on `examples` with a batch size of 1, by name of the length configuration.
        path: The HTML file.
        data: Describes where the examples come from and how many there are.
        num_threads: CPU threads that the model was given.

    Raises:
        InferenceError: OpenVINO failed.
        InvalidInputError: There is no folder to write the page to, or an evaluation ran in batches.
        StorageError: The page could not be written.
    """
    report = evaluation_report(model, measure, examples, evaluations, data=data, num_threads=num_threads)
    note = (
        "Graphs were compiled before, but OpenVINO prepares kernels at the first window of each length, which the "
        "longest time may include. The configurations were timed one after another, so differences of a few per cent "
        f"between them may come from the machine. {report.score} is too optimistic for configurations that were chosen "
        f"on these {measure.examples}."
    )
    write_report(replace(report, notes=(*report.notes, note)), path)


def evaluation_report(
    model: LengthAdaptiveModel,
    measure: Measure[Any],
    examples: Sequence[Any],
    evaluations: Mapping[str, Scored],
    *,
    data: str,
    num_threads: int | None = None,
) -> Report:
    """The report of evaluations, which callers may extend; see `write_evaluation_report` for the arguments.

    Raises:
        InferenceError: OpenVINO failed.
        InvalidInputError: An evaluation ran in batches, so that there are no times.
    """
    by_example = [windows for windows in map(measure.windows_of, examples) if windows]
    configs = {name: model.resolve(name) for name in evaluations if name != "full"}
    all_compiled = LengthAdaptiveModel.from_pretrained(
        model.bundle.path, num_threads=num_threads, max_compiled=len(configs) + 1
    )
    sample = shuffled(list(chain.from_iterable(by_example)), seed=0)[:_TIMED_WINDOWS]
    return Report(
        title=str(model.bundle.source.get("model", model.bundle.path.name)),
        facts=_facts(model, data, num_threads),
        metrics=tuple(measure.metrics.values()),
        example=measure.wording.example,
        named=tuple(_named_result(model, measure, name, evaluations) for name in evaluations),
        plot_data=data,
        decomposition=decompose(
            all_compiled,
            configs,
            sample,
            num_threads=num_threads,
            max_seq_len=measure.padded_length or max(map(len, sample)),
            repeats=_REPEATS,
        ),
        by_length=_gain_by_length(all_compiled, configs, by_example),
        notes=_notes(measure),
    )


def _facts(model: LengthAdaptiveModel, data: str, num_threads: int | None) -> dict[str, str]:
    return {
        "Bundle": model.bundle.path.name,
        "Precision": str(model.bundle.quantization["precision"]).upper(),
        "Significance": model.bundle.significance,
        "Data": data,
        "CPU": cpu.name(),
        "Threads": f"{num_threads}" if num_threads else f"{default_threads()}, by default",
        "Software": f"dynamic-tinybert {version('dynamic-tinybert')}, OpenVINO {version('openvino')}",
        "Date": date.today().isoformat(),
    }


def _named_result(
    model: LengthAdaptiveModel, measure: Measure[Any], name: str, evaluations: Mapping[str, Scored]
) -> NamedResult:
    evaluation, full = evaluations[name], evaluations.get("full")
    difference = None
    if full is not None and name != "full":
        difference = paired_bootstrap(evaluation.scores, full.scores)
    latency = _latency(name, evaluation)
    macs_fewer = _full_macs(model, evaluation) / evaluation.mean_macs
    means = tuple(evaluation.means[metric] for metric in measure.metrics)
    tokens = np.column_stack([evaluation.window_lengths, evaluation.window_kept])
    low, high = np.percentile(tokens, (10, 90), axis=0)
    return NamedResult(
        name=name,
        config=model.resolve(name),
        point=Point(latency.mean, means[0], macs_fewer),
        means=means,
        difference=difference,
        macs_fewer=macs_fewer,
        latency=latency,
        kept=tuple(map(Spread, tokens.mean(0).tolist(), low.tolist(), high.tolist())),
    )


def _latency(name: str, evaluation: Scored) -> Latency:
    if not evaluation.example_ms:
        raise InvalidInputError(f"the evaluation of {name!r} ran in batches and so has no times; use batch_size=1")
    ms = np.asarray(evaluation.example_ms)
    return Latency(*map(float, (ms.mean(), *np.percentile(ms, (50, 95)), ms.max())))


def _full_macs(model: LengthAdaptiveModel, evaluation: Scored) -> float:
    """Mean MACs of a window at full length."""
    layers = model.bundle.shape.num_layers
    return float(np.mean([model.executed_macs("full", n, (n,) * layers) for n in evaluation.window_lengths]))


def _gain_by_length(
    model: LengthAdaptiveModel, configs: Mapping[str, LengthConfig], by_example: Sequence[Sequence[TokenSequence]]
) -> tuple[LengthGain, ...]:
    if not configs:
        return ()
    return tuple(gain_by_length(model, configs, by_example, repeats=_REPEATS))


def _notes(measure: Measure[Any]) -> tuple[str, ...]:
    return (
        measure.wording.measured,
        "The parts of the speedup were timed separately, taking turns, on the model's call alone: up to "
        f"{_TIMED_WINDOWS} random windows, {_REPEATS} times each, of which the median counts. The gain by length was "
        "timed in the same way, on windows within 15 % of each length.",
        f"Intervals contain 95 % of 10,000 paired bootstrap samples of the {measure.examples}. MACs are those executed "
        "for real tokens, including the cost of selecting them; fewer means fewer than at full length without padding.",
    )
