"""Matplotlib figures as inline SVG that uses the fonts and the light or dark colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS: Mapping[str, tuple[str, str]] = {  # on light and on dark paper
    "paper": ("#fefefe", "#14171c"),
    "ink": ("#1c2128", "#e4e7ec"),
    "muted": ("#5f6b7a", "#98a3b3"),
    "faint": ("#b9c2ce", "#4a5463"),
    "line": ("#dfe4ea", "#2a313b"),
    "series-0": ("#2563c9", "#70a8ff"),
    "series-1": ("#0a8467", "#41cfa6"),
    "series-2": ("#c4570c", "#ff9f5a"),
    "series-3": ("#8a3fc0", "#c994f6"),
    "series-4": ("#be2058", "#ff80b1"),
    "series-5": ("#7a6a00", "#d8c64d"),
    "series-6": ("#087a96", "#51d0ef"),
}


def light(name: str) -> str:
    """The light variant of a colour of `COLOURS`, which figures are drawn with."""
    return COLOURS[name][0]


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dynamic-tinybert",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib and is wider than the page's font, so that texts fit
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelpad": 8,
    "figure.dpi": 72,  # a point is a pixel of the page
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("axes.edgecolor", "grid.color"), light("line")),
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), light("muted")),
    "text.color": light("ink"),
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@contextmanager
def drawing(width: int, height: int) -> Iterator[Axes]:
    """The axes of a new figure of this size in pixels; its layout is computed once everything is drawn."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield figure.add_subplot()


def hover(artist: Artist, text: str) -> None:
    """Show `text` when the pointer rests on `artist`."""
    artist.set_gid(f"title {text}")


def to_svg(axes: Axes, label: str) -> Markup:
    """The figure of `axes` as an SVG element, with `label` for screen readers."""
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    drawn = f'<svg {box[0]} role="img" aria-label="{escape(label)}">' + drawn[drawn.index(">") + 1 :]
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)  # styles would apply to the whole page
    drawn = re.sub(r"""<g id=(["'])title (.*?)\1>""", r"<g><title>\2</title>", drawn)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)  # ids would repeat from figure to figure, and nothing refers to them
    for name, (colour, _) in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    return Markup(drawn)
