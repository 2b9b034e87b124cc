"""Compare the runtime's tokens with those of transformers before a bundle is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.files import TOKENIZER
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

_WHOLE = 1_000_000  # size of a window, in tokens, that holds any text
_Windows = list[tuple[list[int], list[int], list[tuple[int, int]]]]
_CUT = {
    "right": "only_second",
    "left": "only_first",
}  # transformers' pipeline puts the context first to pad on the left

PROBES = (
    "Who opened the Harbour Bridge in VELMORA on 3 May 1931, and why?",
    "Émile Zola\u2019s naïve café-crème cost £1,234.50 (≈ 1 500 €) in Zürich — Ångström, Dvořák, İstanbul, Straße.",
    "e\u0301 o\u0308 n\u0303 A\u030a",  # combining accents
    "東京は日本の首都です。中国的首都是北京",
    "Привет мир! Αθήνα, ירושלים, القاهرة, हिन्दी, 서울",
    "🙂 ok 👩‍👩‍👧 🇫🇷 x² ½ ﬁne \uff26\uff55\uff4c\uff4c",
    "donau" * 15 + " " + "x" * 120 + " antidisestablishmentarianism",
    'a_b#c@d.e/f\\g \'tis "quoted" [x] {y} <z> 50%-60% U.S.A. ... #1 ##s',
    "tab\tline\r\nbreak\u00a0no-break\u200bzero\u00adsoft\x07bell \ufffd",
    "0123456789 3.14159 1e-5 12:30 2026-11-29 IV XIV",
)


def first_difference(
    truth: PreTrainedTokenizerFast, tokenizer: Tokenizer, *, token_types: bool, vocab_size: int
) -> str | None:
    """Describe the first text that the runtime would tokenize differently from transformers; None if there is none.

    Each text is tried as the question and as the context, in one window and in several. The ids, the token types and
    the offsets in the text are compared. Texts for which transformers gives ids that the model does not know are
    skipped.

    Args:
        truth: The tokenizer of transformers.
        tokenizer: The tokenizer that the bundle would hold.
        token_types: Whether the model receives token types 0 and 1, not 0 alone.
        vocab_size: Size of the model's vocabulary; all its token ids are smaller.
    """
    tokenize = WindowTokenizer(tokenizer)
    for question, context in _pairs(truth, tokenizer):
        whole = _of_transformers(truth, question, context, {})
        ids = [token for window in whole for token in window[0]]
        if not ids or max(ids) >= vocab_size:
            continue
        special = truth.num_special_tokens_to_add(pair=True)
        room = len(truth(question, add_special_tokens=False, verbose=False)["input_ids"]) + special + 6
        for size, stride in ((_WHOLE, 0), (room, 2)):
            cut = {"truncation": _CUT[truth.padding_side], "max_length": size, "stride": stride}
            expected = whole if size == _WHOLE else _of_transformers(truth, question, context, cut)
            given: _Windows | str
            try:
                given = _of_runtime(tokenize, question, context, size, stride)
            except InvalidInputError as error:
                given = str(error)
            if not token_types:
                expected = [(ids, [0] * len(ids), offsets) for ids, _, offsets in expected]
                if not isinstance(given, str):
                    given = [(ids, [0] * len(ids), offsets) for ids, _, offsets in given]
            if expected != given:
                return _described(question, context, truth, tokenizer, expected, given)
    return None


def _pairs(truth: PreTrainedTokenizerFast, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Questions and contexts: the probes, special and added tokens as text, and words of the vocabulary."""
    vocabulary = sorted(truth.get_vocab() | tokenizer.get_vocab())
    added = [own.get_added_tokens_decoder() for own in (truth.backend_tokenizer, tokenizer)]
    contents = (tokens[i].content for tokens in added for i in sorted(tokens))
    special = list(dict.fromkeys([*truth.all_special_tokens, *contents]))[:100]
    texts = [*PROBES, *(f"the {token}is {token} x{token.lower()}" for token in special)]
    step = max(1, len(vocabulary) // 400)
    sample = [token.removeprefix("##") for token in vocabulary[::step] if token not in special]
    texts += [" ".join(sample[first : first + 40]) for first in range(0, len(sample), 40)]
    for text in texts:
        for pair in ((PROBES[0], text), (text, PROBES[0])):
            if all(truth(part, add_special_tokens=False, verbose=False)["input_ids"] for part in pair):
                yield pair


def _of_transformers(
    truth: PreTrainedTokenizerFast, question: str, context: str, cut: Mapping[str, object]
) -> _Windows:
    pair = (question, context) if truth.padding_side == "right" else (context, question)
    encoded = truth(
        *pair,
        return_offsets_mapping=True,
        return_overflowing_tokens=True,
        return_token_type_ids=True,
        verbose=False,
        **cut,
    )
    columns = encoded["input_ids"], encoded["token_type_ids"], encoded["offset_mapping"]
    return [(list(ids), list(types), list(offsets)) for ids, types, offsets in zip(*columns, strict=True)]


def _of_runtime(tokenize: WindowTokenizer, question: str, context: str, size: int, stride: int) -> _Windows:
    windows = tokenize(question, context, max_seq_len=size, doc_stride=stride)
    rows = [{name: array[0].tolist() for name, array in stack([window]).items()} for window in windows]
    offsets = [list(window.encoding.offsets) for window in windows]
    return [(row["input_ids"], row["token_type_ids"], own) for row, own in zip(rows, offsets, strict=True)]


def _described(
    question: str,
    context: str,
    truth: PreTrainedTokenizerFast,
    tokenizer: Tokenizer,
    expected: _Windows,
    given: _Windows | str,
) -> str:
    varied = context if question == PROBES[0] else question
    if isinstance(given, str):
        theirs, ours = str(truth.convert_ids_to_tokens(expected[0][0])), given
    elif len(expected) != len(given):
        theirs, ours = f"{len(expected)} windows", f"{len(given)} windows"
    else:
        here = next(i for i, pair in enumerate(zip(expected, given, strict=True)) if pair[0] != pair[1])
        a, b = expected[here], given[here]
        if a[0] != b[0]:
            names = [
                [own.id_to_token(token) for token in ids]
                for own, ids in ((truth.backend_tokenizer, a[0]), (tokenizer, b[0]))
            ]
            theirs, ours = map(str, names if names[0] != names[1] else (a[0], b[0]))
        elif a[1] != b[1]:
            theirs, ours = f"the token types {a[1]}", f"{b[1]}"
        else:
            theirs, ours = f"the offsets {a[2]}", f"{b[2]}"
    return f"{varied!r} transformers' AutoTokenizer gives {theirs}, and {TOKENIZER} by itself {ours}"
