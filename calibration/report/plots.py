"""The plots of a report, each an SVG element."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import attrgetter, mul
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .contents import NamedResult, Point, Report
from .decomposition import Decomposition
from .labels import Label, place_labels
from .svg import drawing, hover, light, to_svg

Cost = Literal["latency_ms", "macs_fewer"]
Gain = Literal["speedup", "macs_fewer"]

_GAIN_LABELS: dict[Gain, str] = {"speedup": "x faster", "macs_fewer": "MACs, x fewer"}
_POINTS_SHOWN = 5  # points below the best; configurations below that are of no interest
_ROUND = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 3, 5, 7)]


def colours(named: Iterable[NamedResult]) -> dict[str, str]:
    """A colour of `svg.COLOURS` for each configuration."""
    others = [result.name for result in named if result.name != "full"]
    return {"full": "ink"} | {name: f"series-{i % 7}" for i, name in enumerate(others)}


def lowest_shown(report: Report) -> float:
    """The score below which `score_against_cost` leaves out points of the search."""
    always = [result.point.score for result in report.named] + [peer.score for peer in report.peers]
    best = max(always)
    lowest = min(always + [point.score for point in report.front if point.score >= best - _POINTS_SHOWN])
    return lowest - 0.2 * max(best - lowest, 1)


def score_against_cost(report: Report, cost: Cost, width: int, height: int) -> Markup:
    """The points of the search, their front, the named configurations and, against latency, the peers."""
    cost_of = attrgetter(cost)
    label = "MACs, x fewer than full" if cost == "macs_fewer" else f"mean time of a {report.example}, ms"
    lowest = lowest_shown(report)
    searched = [point for point in report.points if point.score >= lowest and point not in report.front]
    front = sorted((point for point in report.front if point.score >= lowest), key=cost_of)
    peers = report.peers if cost == "latency_ms" else ()
    colour_of = colours(report.named)
    with drawing(width, height) as axes:
        axes.set(xlabel=label, ylabel=report.score)
        for point in searched:
            _dot(axes, cost_of(point), point.score, _figures(report, point), color=light("faint"), markersize=5)
        axes.plot([cost_of(point) for point in front], [point.score for point in front], color=light("muted"))
        for point in front:
            text = f"front: {_figures(report, point)}"
            _dot(axes, cost_of(point), point.score, text, color=light("muted"), markersize=6.5)
        labels = []
        for result in report.named:
            x, y, colour = cost_of(result.point), result.point.score, light(colour_of[result.name])
            _dot(axes, x, y, f"{result.name}: {_figures(report, result.point)}", color=colour, markersize=11)
            labels.append(Label(result.name, x, y))
        for peer in peers:
            text = f"{peer.name}: {report.score} {peer.score:.2f}, {peer.latency_ms:.2f} ms"
            _dot(axes, peer.latency_ms, peer.score, text, marker="D", color=light("muted"), markersize=8)
            labels.append(Label(peer.name, peer.latency_ms, peer.score))
        marks = [(cost_of(point), point.score) for point in (*searched, *front)]
        _factor_axis(axes, [x for x, _ in marks] + [label.x for label in labels])
        best = max(score for _, score in marks + [(label.x, label.y) for label in labels])
        axes.set_ylim(lowest, best + 0.12 * (best - lowest))
        place_labels(axes, labels, marks, light("muted"))
        return to_svg(axes, f"{report.score} against {label}")


def kept_tokens(result: NamedResult, colour: str, most: float, width: int, height: int) -> Markup:
    """Tokens that enter and leave each layer: the mean, and the middle 80 % of the windows as a band.

    Args:
        result: The configuration.
        colour: A name of `svg.COLOURS`.
        most: The largest number of tokens; plots side by side share this upper end of the axis.
        width: Width in pixels.
        height: Height in pixels.
    """
    places = range(len(result.kept))  # the input, then each layer
    with drawing(width, height) as axes:
        low, high = [spread.low for spread in result.kept], [spread.high for spread in result.kept]
        axes.fill_between(places, low, high, color=light(colour), alpha=0.16, linewidth=0)
        axes.plot(places, [spread.mean for spread in result.kept], color=light(colour), linewidth=1.8)
        for x, spread in enumerate(result.kept):
            where = f"after layer {x - 1}" if x else "input"
            text = f"{where}: mean {spread.mean:.1f}, 10th to 90th percentile {spread.low:.0f} to {spread.high:.0f}"
            _dot(axes, x, spread.mean, text, color=light(colour), markersize=6)
            axes.annotate(
                f"{spread.mean:.0f}", (x, spread.mean), (0, 7), textcoords="offset points", ha="center", size=10.5
            )
        axes.set(xlabel="after layer", ylabel="tokens", ylim=(0, 1.08 * most))
        axes.set_xticks(places, ["input", *map(str, places[:-1])], size=10.5)
        axes.grid(visible=False, axis="x")
        return to_svg(axes, f"Tokens kept by {result.name} after each layer")


def speed_parts(parts: Decomposition, named: Iterable[NamedResult], width: int) -> Markup:
    """Each factor of the speedup as a bar that starts where the previous ones end."""
    common = {"real lengths": parts.unpadding} | ({} if parts.int8 is None else {"INT8": parts.int8})
    starts = list(accumulate(common.values(), mul, initial=1.0))
    colour_of = colours(named)
    bars = [(name, factor, start, "muted") for (name, factor), start in zip(common.items(), starts, strict=False)]
    bars += [(name, factor, starts[-1], colour_of[name]) for name, factor in parts.dropping.items()]
    with drawing(width, 60 + 34 * len(bars)) as axes:
        for row, (name, factor, start, colour) in enumerate(bars):
            bar = axes.barh(row, start * factor - start, left=start, height=0.55, color=light(colour))
            hover(bar[0], f"{name}: {factor:.2f}x, from {start:.2f}x to {start * factor:.2f}x")
            so_far = f" \N{RIGHTWARDS ARROW} {start * factor:.1f}x" if row else ""
            axes.bar_label(bar, [f"{factor:.2f}x{so_far}"], padding=6)
            axes.vlines(start, min(row, len(common)) - 1 if so_far else row, row, color=light("muted"), linewidth=1)
        _factor_axis(axes, [1, *starts, *(factor * start for _, factor, start, _ in bars)])
        axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
        axes.tick_params(axis="y", labelcolor=light("ink"))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("x faster, all steps so far")
        return to_svg(axes, "Speed gained by each step")


def gain_by_length(report: Report, gain: Gain, width: int, height: int) -> Markup:
    """The gain of each configuration against the length of the input, as one line for each configuration."""
    groups = report.by_length
    gains: list[Mapping[str, float]] = [attrgetter(gain)(group) for group in groups]
    with drawing(width, height) as axes:
        axes.axhline(1, color=light("ink"), linewidth=1.2)
        ends: list[Label] = []
        marks: list[tuple[float, float]] = []
        for name, colour in colours(report.named).items():
            if name == "full":
                continue
            line = [of_group[name] for of_group in gains]
            axes.plot(line, color=light(colour), linewidth=1.8)
            for x, (group, y) in enumerate(zip(groups, line, strict=True)):
                _dot(axes, x, y, f"{name}, {group.name}: {y:.2f}x", color=light(colour), markersize=7)
            along = np.linspace(0, len(groups) - 1, 8 * len(groups))
            marks += zip(along, np.interp(along, range(len(groups)), line), strict=True)
            ends.append(Label(name, len(groups) - 1, line[-1]))
        axes.set_xticks(range(len(groups)), [group.name.replace(" ", "\n", 1) for group in groups])
        axes.set_xlim(-0.08 * len(groups), 1.3 * len(groups) - 1)  # with room for the names
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(_GAIN_LABELS[gain])
        place_labels(axes, ends, marks, light("muted"))
        return to_svg(axes, f"Gain by length: {_GAIN_LABELS[gain]}")


def _dot(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
    (dot,) = axes.plot(x, y, **{"marker": "o", "markeredgecolor": light("paper"), **style})
    hover(dot, text)


def _figures(report: Report, point: Point) -> str:
    return f"{report.score} {point.score:.2f}, {point.latency_ms:.2f} ms, {point.macs_fewer:.2f}x fewer MACs"


def _factor_axis(axes: Axes, values: Sequence[float]) -> None:
    """Give x a logarithmic scale that shows `values`, with a few round ticks."""
    margin = (max(values) / min(values)) ** 0.08 * 1.01
    low, high = min(values) / margin, max(values) * margin
    ticks = MaxNLocator(6, steps=(1, 2, 5, 10)).tick_values(low, high) if high < 4 * low else _ROUND
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
