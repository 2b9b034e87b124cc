"""What several benchmarks need: arguments, questions and their windows, graphs, memory, and how changes are printed."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np
import openvino as ov

from dynamic_tinybert.runtime import LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.encoder.compilation import is_fused
from dynamic_tinybert.runtime.encoder.graph import with_selection
from dynamic_tinybert.runtime.encoder.plain_graph import products_saturate, read_plain_graph
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.tasks import task_named
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window

ROOT = Path(__file__).parents[1]
Item = TypeVar("Item")


def argument_parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a script's docstring with its line breaks."""
    return argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)


def versions(*packages: str) -> dict[str, str]:
    """The versions of our package, of OpenVINO, and of those `packages` that are installed."""
    found = {}
    for name in ("dynamic-tinybert", "openvino", *packages):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def measured_on(*packages: str) -> str:
    """The CPU, the commit if it is known, and versions, as a line."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    found = ", ".join(f"{name} {number}" for name, number in versions(*packages).items())
    return f"{cpu.name()}, {len(os.sched_getaffinity(0))} CPUs; commit {commit}; {found}"


def random_sample(items: Sequence[Item], count: int | None = None, seed: int = 0) -> list[Item]:
    """`count` of the items in random order; all of them if it is None."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))[:count]]


def windows_of(bundle: Bundle, examples: Sequence[Example]) -> list[list[Window]]:
    """The windows of each question, as the runtime cuts them by default.

    Raises:
        DataError: The model cannot read one of the questions.
    """
    windowing = Windowing.of(bundle)
    windows = [windowing(example) for example in examples]
    if windowing.unreadable:
        raise DataError(f"the model cannot read {windowing.unreadable[0]}")
    return windows


def first_windows_of(bundle: Bundle, examples: Sequence[Example]) -> list[Window]:
    """The first window of each question."""
    return [own[0] for own in windows_of(bundle, examples)]


def latency_properties(threads: int, precision: str | None = None) -> dict[str, object]:
    """OpenVINO's properties for one request at a time, by default in the precision that the runtime takes."""
    return {
        "INFERENCE_PRECISION_HINT": precision or cpu.best_float_precision(),
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }


def plain_graph(bundle: Bundle) -> ov.Model:
    """A bundle's graph without selection, as the runtime reads it on this CPU."""
    return read_plain_graph(bundle, task_named(bundle.task))


def selecting_graph(bundle: Bundle, plain: ov.Model, config: LengthConfig | None, kept_multiple: int) -> ov.Model:
    """A bundle's graph with selection, as the runtime makes it, but with another multiple for kept tokens.

    Args:
        bundle: The bundle of the graph.
        plain: The graph without selection, from `plain_graph`.
        config: The length configuration; None for an elastic graph, which has it as inputs.
        kept_multiple: Selections pad the kept tokens to a multiple of this.
    """
    return with_selection(
        plain,
        config,
        task=task_named(bundle.task),
        num_layers=bundle.shape.num_layers,
        num_heads=bundle.num_attention_heads,
        scorers=load_scorer_tensors(bundle.scorers) if bundle.scorers else None,
        multiple=kept_multiple,
        fused=is_fused(bundle),
        float_weights=products_saturate(bundle),
    )


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process, by default of this one."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    return resident_bytes() / 2**20


def mean_change(values: Sequence[float], before: Sequence[float], clusters: Sequence[str] | None = None) -> str:
    """Mean difference of paired values with its 95 % bootstrap interval, as text; over clusters if they are given."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*paired_bootstrap(values, before, clusters=clusters))
