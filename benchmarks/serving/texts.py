"""Questions with texts of a given length in tokens."""

from __future__ import annotations

from collections.abc import Sequence

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

Pair = tuple[str, str]
"""A question and a text."""


def pairs_of_length(bundle: Bundle, examples: Sequence[Example], tokens: int, count: int) -> list[Pair]:
    """Questions whose texts are cut, between two words, so that there is one window of at most `tokens` tokens.

    Texts that are too short are left out. The windows are as long as words allow.

    Args:
        bundle: Its tokenizer cuts.
        examples: Where questions and texts come from.
        tokens: Length of the window, with the question and special tokens.
        count: Number of pairs; the first ones that are long enough are taken, again if there are fewer.

    Raises:
        ValueError: No text is long enough.
    """
    windowing = Windowing.of(bundle)

    def length(question: str, context: str) -> int:
        return sum(map(len, windowing.cut(question, context)))

    found: list[Pair] = []
    for example in examples:
        if len(found) == count:
            break
        words = example.context.split()
        fits, too_long = 0, len(words)
        if too_long < 2 or length(example.question, " ".join(words)) <= tokens:
            continue
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if length(example.question, " ".join(words[:middle])) <= tokens:
                fits = middle
            else:
                too_long = middle
        if fits:
            found.append((example.question, " ".join(words[:fits])))
    if not found:
        raise ValueError(f"no text has more than {tokens} tokens")
    return [found[i % len(found)] for i in range(count)]
