"""The table, the decomposition and the plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TypeVar

from .results import Figures
from .turns import Interval

F = TypeVar("F")
Columns = Sequence[tuple[str, Callable[[F], str]]]
"""The head of each column, and what it shows of a system's figures."""

COLUMNS: Columns[Figures] = (
    ("F1", lambda f: number(f.f1, 2)),
    ("against {reference}", lambda f: interval(f.f1_difference, "+.2f")),
    ("p50 ms", lambda f: number(f.p50_ms, 2)),
    ("p95 ms", lambda f: number(f.p95_ms, 2)),
    ("x its time", lambda f: interval(f.ratio, ".3f")),
    ("questions/s", lambda f: number(f.questions_per_second, 1)),
    ("p50 ms, length new", lambda f: number(f.first_visit_p50_ms, 2)),
    ("resident MiB", lambda f: number(f.resident_mib, 0)),
    ("start s", lambda f: number(f.cold_start, 2)),
    ("again, cached s", lambda f: number(f.warm_start, 2)),
    ("of the limit", lambda f: f"{f.limit_share:.0%}"),
)


def table(figures: Mapping[str, F], columns: Columns[F], reference: str) -> Iterable[str]:
    """The table as lines of Markdown; heads may have "{reference}", which stands for the name of that system."""
    names = [title.format(reference=f"`{reference}`") for title, _ in columns]
    yield "| " + " | ".join(["System", *names]) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for name, of_system in figures.items():
        yield "| " + " | ".join([name, *(show(of_system) for _, show in columns)]) + " |"


def decomposition(figures: Mapping[str, Figures], padded: str, unpadded: str, int8: str, dropping: str) -> str:
    """What each step from our padded FP32 graph to a configuration gains, by mean times."""
    times = [figures[name].mean_ms for name in (padded, unpadded, int8, dropping)]
    gains = [before / after for before, after in pairwise(times)]
    steps = " x ".join(
        f"{gain:.2f} ({step})" for gain, step in zip(gains, ("unpadding", "INT8", "dropping"), strict=True)
    )
    return f"{dropping}: {times[0] / times[-1]:.2f}x = {steps}"


def draw(
    points: Mapping[str, tuple[float, float]], ours: Sequence[str], title: str, file: Path, *, score: str, time: str
) -> None:
    """Score against time; `ours` are joined by a line and labelled, other systems are in the legend.

    Args:
        points: Milliseconds and score of each system.
        ours: Names of our systems, which begin with "ours".
        title: The title.
        file: The file to write.
        score: What the scores are.
        time: What the times are of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*sorted(points[name] for name in ours), strict=True), "o-", color="tab:red", label="ours")
    for name in ours:
        axes.annotate(name.removeprefix("ours "), points[name], xytext=(5, 5), textcoords="offset points", fontsize=8)
    others = [name for name in points if name not in ours]
    for name, marker in zip(others, cycle("s^vD<>pX*Ph8"), strict=False):
        axes.plot(*points[name], marker, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_xlabel(time)
    axes.set_ylabel(score)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    figure.savefig(file)


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def interval(values: Interval | None, form: str) -> str:
    return "-" if values is None else "{:{form}} [{:{form}}, {:{form}}]".format(*values, form=form)
