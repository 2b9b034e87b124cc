"""The table, the decomposition and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path

from .results import Figures

_COLUMNS = (
    ("F1", lambda f: _number(f.f1, 2)),
    ("against {reference}", lambda f: _interval(f.f1_difference, "+.2f")),
    ("p50 ms", lambda f: _number(f.p50_ms, 2)),
    ("p95 ms", lambda f: _number(f.p95_ms, 2)),
    ("x its time", lambda f: _interval(f.ratio, ".3f")),
    ("questions/s", lambda f: _number(f.questions_per_second, 1)),
    ("p50 ms, length new", lambda f: _number(f.first_visit_p50_ms, 2)),
    ("resident MiB", lambda f: _number(f.resident_mib, 0)),
    ("start s", lambda f: _number(f.cold_start, 2)),
    ("again, cached s", lambda f: _number(f.warm_start, 2)),
    ("of the limit", lambda f: f"{f.limit_share:.0%}"),
)


def table(figures: Mapping[str, Figures], reference: str) -> Iterable[str]:
    """The table as lines of Markdown; in its heads, "its time" is the time of the reference."""
    names = [title.format(reference=f"`{reference}`") for title, _ in _COLUMNS]
    yield "| " + " | ".join(["System", *names]) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for name, of_system in figures.items():
        yield "| " + " | ".join([name, *(show(of_system) for _, show in _COLUMNS)]) + " |"


def decomposition(figures: Mapping[str, Figures], padded: str, unpadded: str, int8: str, dropping: str) -> str:
    """What each step from our padded FP32 graph to a configuration gains, by mean times."""
    times = [figures[name].mean_ms for name in (padded, unpadded, int8, dropping)]
    gains = [before / after for before, after in pairwise(times)]
    steps = " x ".join(
        f"{gain:.2f} ({step})" for gain, step in zip(gains, ("unpadding", "INT8", "dropping"), strict=True)
    )
    return f"{dropping}: {times[0] / times[-1]:.2f}x = {steps}"


def draw(figures: Mapping[str, Figures], ours: Sequence[str], title: str, file: Path) -> None:
    """F1 against p50 of all systems that have an F1; `ours` are joined by a line and labelled, others in the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    scored = {name: (f.p50_ms, f.f1) for name, f in figures.items() if f.f1 is not None}
    axes.plot(*zip(*sorted(scored[name] for name in ours), strict=True), "o-", color="tab:red", label="ours")
    for name in ours:
        axes.annotate(name.removeprefix("ours "), scored[name], xytext=(5, 5), textcoords="offset points", fontsize=8)
    others = [name for name in scored if name not in ours]
    for name, marker in zip(others, cycle("s^vD<>pX*Ph8"), strict=False):
        axes.plot(*scored[name], marker, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_xlabel("p50 of a question, ms (the model's calls alone)")
    axes.set_ylabel("F1")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    figure.savefig(file)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(values: tuple[float, float, float] | None, form: str) -> str:
    return "-" if values is None else "{:{form}} [{:{form}}, {:{form}}]".format(*values, form=form)
