"""Windows of any length for timing: real questions about a real text, because what is dropped depends on both."""

from __future__ import annotations

from itertools import islice, zip_longest

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.windows import Window

from .windowing import Windowing

_QUESTIONS = (
    "Why were the first lighthouses built on hills?",
    "Who invented the lens that made lamps visible from far away?",
    "How many prisms does a large lens have?",
    "What fuel replaced oil in the lamps?",
    "When did most lighthouses become automatic?",
    "What does a keeper have to wind every few hours?",
)
_SHORTEST = "?"  # for windows in which none of these leaves room

_TEXT = """
A lighthouse is a tower with a bright lamp that shows ships where the coast is. The first ones were open fires on
hills, because a light that stands higher can be seen from farther away. Later the fires were put on platforms and
towers, and harbours paid for the wood or coal that they burned. The best known tower of the ancient world stood at
Alexandria in Egypt. It was built in the third century before our era, was about one hundred metres high, and guided
ships for more than a thousand years, until earthquakes brought it down.

In the seventeenth and eighteenth centuries trade across the oceans grew quickly, and so did the number of ships that
were lost on rocks. Engineers learned to build towers in the sea itself. John Smeaton rebuilt the tower on the
Eddystone Rocks in 1759. He gave it the shape of an oak, wide at the foot and narrow above, and joined its blocks of
granite so that each one held its neighbours. He also found a cement that hardens under water. Builders on many coasts
followed his example, often working only the few hours of low tide in summer.

The lamps improved more slowly. Candles and simple oil lamps gave little light, and mirrors behind them were soon
covered with soot. Around 1780 Aimé Argand made a lamp with a round wick and a glass chimney, which burned brightly
and almost without smoke. In 1822 Augustin Fresnel, a French engineer, invented a lens made of many rings of glass. It
collects the light that would be lost above and below, and sends it out as one beam. A large lens of this kind has
more than one thousand prisms, stands taller than a man, and can be seen at a distance of more than thirty kilometres.
It turns on a bath of mercury, so easily that a clockwork can move it. The keeper had to wind up the weight of this
clockwork every few hours, all through the night.

Each lighthouse has a rhythm of its own. By the number of flashes and the dark time between them sailors know which
tower they see, and find their place on a chart. By day they know it by the colours of its walls, which may have red
and white stripes or black bands. In fog, when no light helps, bells, guns and later horns gave the warning instead.

Whale oil was the usual fuel until it became too expensive. Rapeseed oil, lard and then kerosene took its place, and
in the twentieth century electricity replaced oil nearly everywhere. Gustaf Dalén, an engineer from Sweden, built a
valve that turned the gas of a lamp off when the sun rose and on again at dusk. For this he received the Nobel Prize
in Physics in 1912. His lamps could burn for a year without a visit, which made it possible to mark lonely rocks where
nobody could live.

Keepers and their families had lived in the towers for generations. They cleaned the lenses, trimmed the wicks, wrote
down the weather, and rowed out when a ship was in distress. Most lighthouses became automatic between 1960 and 1990.
Today satellites tell a ship its position within a few metres, yet many towers still shine, because a light needs no
receiver and cannot be jammed. Others have become museums, hotels or private houses, and volunteers look after lenses
that nobody could make today.
"""

_MOST = 16  # windows of one length


def sample_windows(windowing: Windowing, length: int) -> list[Window]:
    """At least one and at most 16 windows of exactly `length` tokens: of different questions, from different places.

    Raises:
        InvalidInputError: A window of this length has no room for a question of one token.
    """
    sized = windowing.resized(length, length // 2)
    by_question = [_full_windows(sized, question) for question in _QUESTIONS]
    if not any(by_question):
        by_question = [_full_windows(sized, _SHORTEST)]
    # Each question begins at another place of the text, so that neighbours in the result share neither.
    shifted = [own[k % len(own) :] + own[: k % len(own)] for k, own in enumerate(by_question) if own]
    found = list(islice((window for row in zip_longest(*shifted) for window in row if window is not None), _MOST))
    if not found:
        raise InvalidInputError(f"there are no windows of {length} tokens to measure; the model reads too few")
    return found


def _full_windows(windowing: Windowing, question: str) -> list[Window]:
    """The windows of a question that are as long as they may be; none if the question leaves no room."""
    for times in (1, 4, 16):  # a tokenizer may make few tokens of the text
        try:
            windows = [w for w in windowing.cut(question, _TEXT * times) if len(w) == windowing.max_seq_len]
        except InvalidInputError:
            return []
        if windows:
            return windows
    return []
