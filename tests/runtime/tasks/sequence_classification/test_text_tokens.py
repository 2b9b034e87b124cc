"""Texts and pairs are tokenized and cut as transformers' fast tokenizers do it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokenizer

from support.classifiers import WORDS, transformers_tokenizer
from support.tiny import tiny_tokenizer

MAX_LENGTH = 17
OURS = TextTokenizer(tiny_tokenizer(), MAX_LENGTH)
THEIRS = transformers_tokenizer(MAX_LENGTH)
some_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join)


@given(some_words, st.none() | some_words)
def test_tokens_are_those_of_transformers(text: str, text_pair: str | None) -> None:
    found = OURS(text, text_pair, truncation=True)
    expected = THEIRS(text, text_pair, truncation=True, return_token_type_ids=True)
    assert found.input_ids == expected["input_ids"]
    assert found.token_type_ids == expected["token_type_ids"]
    whole = THEIRS(text, text_pair)["input_ids"]
    assert found.is_cut == (len(whole) > MAX_LENGTH)
    if found.is_cut:
        with pytest.raises(InvalidInputError, match=f"{len(whole)} tokens, and this model reads {MAX_LENGTH}"):
            OURS(text, text_pair)
    else:
        assert OURS(text, text_pair).input_ids == found.input_ids


@pytest.mark.parametrize(
    ("text", "text_pair", "message"),
    [
        ("", None, "text is empty"),
        (" \n", "x", "text is empty"),
        ("x", "", "text_pair is empty: '' holds no token"),
        (3, None, "text must be a string, not int"),
        (None, None, "text must be a string, not NoneType"),
        ("x", ["y"], "text_pair must be a string, not list"),
        ("\ud800", None, "not valid Unicode"),
        ("x", "\ud800", "not valid Unicode"),
    ],
)
def test_what_is_no_text_is_refused(text: str, text_pair: str | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        OURS(text, text_pair)
