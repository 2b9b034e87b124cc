"""A plot of quality against MACs before and after a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from dynamic_tinybert.runtime.common.publish import writing

from .front_meter import Point


def plot_fronts(fronts: Mapping[str, Sequence[Point]], path: Path, *, metric: str = "F1") -> None:
    """Draw fronts as lines through their points, in order of cost, and write the plot as SVG.

    Args:
        fronts: Fronts by name.
        path: The file.
        metric: Name of the score, for the axis.

    Raises:
        StorageError: The file could not be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in fronts.items():
        ordered = sorted(points, key=lambda point: point.macs)
        axes.plot([p.macs / 1e9 for p in ordered], [p.score for p in ordered], marker="o", markersize=4, label=name)
    axes.set_xlabel("giga-MACs of a question")
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with writing(path), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dynamic-tinybert"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
