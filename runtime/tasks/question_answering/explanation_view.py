"""Show an explanation in a terminal: in colours if the terminal has them, else as one text per layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from .explanation import ExplainedWindow, ExplainedWord, Explanation

_BAR_WIDTH = 30
_INDENT = len("question  ")
_KEY_IN_COLOURS = "colour: the layer that dropped the word; bold: kept by all layers; underlined: answer"
_KEY_BY_LAYER = "…: dropped by this layer or an earlier one"
_PLAIN = Style()
_BOLD = Style(bold=True)
_UNDERLINED = Style(underline=True)
# Colours from the first selecting layer to the last; readable on dark and on light backgrounds.
_RAMP = ((128, 128, 128), (95, 135, 215), (0, 165, 165), (95, 165, 0), (215, 135, 0), (215, 80, 120))


def show(explanation: Explanation, console: Console) -> None:
    """Print the answer, and which words remain after each layer that may drop some.

    With colours the text is printed once, each word in the colour of the layer that dropped it. Without colours
    (pipes, ``NO_COLOR``, dumb terminals) it is printed once per layer, with "…" for words that have been dropped.
    """
    answer, windows = explanation.answer, explanation.windows
    in_colours = console.color_system is not None and not console.no_color
    console.print(Text(_printable(answer["answer"]), _BOLD))
    console.print(Text(f"score {answer['score']:.3f}, characters {answer['start']}-{answer['end']}"))
    facts = f"length configuration {explanation.length_config_name or explanation.length_config.keep_ratios}"
    if any(map(_drops, windows)):
        console.print(Text(f"{facts}, {explanation.macs_fewer:.2f}x fewer MACs than full"))
        console.print(Text(_KEY_IN_COLOURS if in_colours else _KEY_BY_LAYER))
    else:
        console.print(Text(facts))
    for index, window in enumerate(windows):
        console.print()
        if len(windows) > 1:
            console.print(_title(explanation, index))
        if not _drops(window):
            console.print(Text(f"nothing is dropped: every layer passes on all {len(window.tokens)} tokens"))
        elif in_colours:
            _show_in_colours(explanation, window, console)
        else:
            _show_by_layer(explanation, window, console)


def _drops(window: ExplainedWindow) -> bool:
    return window.kept[-1] < len(window.tokens)


def _title(explanation: Explanation, index: int) -> Text:
    context = [word for word in explanation.windows[index].words if word.segment == "context"]
    title = f"window {index + 1} of {len(explanation.windows)}, characters {context[0].start}-{context[-1].end}"
    return Text(f"{title}: the answer is from here", _BOLD) if index == explanation.answer_window else Text(title)


def _show_in_colours(explanation: Explanation, window: ExplainedWindow, console: Console) -> None:
    layers = explanation.length_config.selecting_layers
    styles = {layer: _colour(rank / max(1, len(layers) - 1)) for rank, layer in enumerate(layers)}
    counts = [_count(window, layer) for layer in layers]
    left = _BAR_WIDTH
    for layer, count in zip(layers, counts, strict=True):
        kept = round(_BAR_WIDTH * window.kept[layer] / len(window.tokens))
        label = count.ljust(max(map(len, counts)) + 2)
        bar = ("━" * kept, _BOLD), ("━" * (left - kept), styles[layer])
        console.print(Text.assemble((label, styles[layer]), *bar))
        left = kept
    console.print()

    def style(word: ExplainedWord) -> Style:
        base = _BOLD if word.dropped_at is None else styles[word.dropped_at]
        return base + _UNDERLINED if _is_of_answer(word, explanation) else base

    _print_words(explanation, window, style, console)


def _show_by_layer(explanation: Explanation, window: ExplainedWindow, console: Console) -> None:
    for rank, layer in enumerate(explanation.length_config.selecting_layers):

        def style(word: ExplainedWord, layer: int = layer) -> Style | None:
            return _PLAIN if word.dropped_at is None or word.dropped_at > layer else None

        if rank:
            console.print()
        console.print(Text(_count(window, layer)))
        _print_words(explanation, window, style, console)


def _count(window: ExplainedWindow, layer: int) -> str:
    kept, length = window.kept[layer], len(window.tokens)
    return f"layer {layer}: {kept} of {length} tokens ({100 * kept / length:.0f} %)"


def _is_of_answer(word: ExplainedWord, explanation: Explanation) -> bool:
    answer = explanation.answer
    return word.segment == "context" and answer["start"] <= word.start and word.end <= answer["end"]


def _print_words(
    explanation: Explanation,
    window: ExplainedWindow,
    style: Callable[[ExplainedWord], Style | None],
    console: Console,
) -> None:
    """Print the question, then the window's part of the context, with "…" for words without a style."""
    for label, source in (("question", explanation.question), ("context", explanation.context)):
        words = [word for word in window.words if word.segment == label]
        text = Text()
        position = words[0].start
        for run_style, run in groupby(words, style):
            first, *rest = run
            last = rest[-1] if rest else first
            text.append(" " if any(map(str.isspace, source[position : first.start])) else "")
            text.append("…" if run_style is None else _printable(source[first.start : last.end]), run_style)
            position = last.end
        for line in text.wrap(console, max(console.width - _INDENT, _INDENT)):
            line.rstrip()
            console.print(Text(label.ljust(_INDENT)).append(line))
            label = ""


def _colour(position: float) -> Style:
    """The colour at a position from 0 to 1 along the ramp."""
    whole, part = divmod(position * (len(_RAMP) - 1), 1)
    below, above = _RAMP[int(whole)], _RAMP[min(int(whole) + 1, len(_RAMP) - 1)]
    return Style(color=Color.from_rgb(*(a + part * (b - a) for a, b in zip(below, above, strict=True))))


def _printable(text: str) -> str:
    """`text` on one line, without characters that a terminal would interpret instead of displaying them."""
    return "".join(character for character in re.sub(r"\s+", " ", text) if character.isprintable())
