from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dynamic_tinybert.runtime.common.errors import BundleCorruptError, InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.contract import CONTRACT
from support.tiny import letter_tokenizer
from support.torch_model import transformers_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = st.one_of(st.text(max_size=60), st.text("abc dé\u0301ß日本 🙂.,?\n\t\u200d\u05d0", min_size=1, max_size=200))


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_tokenizer(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def tokenize(tokenizer_file: Path) -> WindowTokenizer:
    return WindowTokenizer(tokenizer_file)


def assert_same_windows(windows: list[Window], expected: Any) -> None:  # noqa: ANN401 - BatchEncoding
    assert len(windows) == len(expected["input_ids"])
    for i, window in enumerate(windows):
        encoding, context = window.encoding, window.context
        assert encoding.ids == expected["input_ids"][i]
        assert len(window) == len(encoding.ids)
        assert encoding.offsets == expected["offset_mapping"][i]
        of_context = [at for at, sequence in enumerate(expected.sequence_ids(i)) if sequence == 1]
        assert of_context == list(range(context.start, context.stop))
        for at in of_context:
            word = expected.encodings[i].token_to_word(at)
            assert encoding.token_to_word(at) == word
            assert encoding.token_to_chars(at) == expected.encodings[i].token_to_chars(at)
            assert encoding.word_to_chars(word, 1) == expected.encodings[i].word_to_chars(word, 1)


def transformers_windows(
    tokenizer: PreTrainedTokenizerFast, question: str, context: str, max_seq_len: int, doc_stride: int
) -> Any:  # noqa: ANN401 - BatchEncoding
    return tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=max_seq_len,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )


@given(question=TEXTS, context=TEXTS, room=st.integers(1, 40), data=st.data())
def test_windows_are_those_of_transformers(
    tokenizer_file: Path,
    tokenize: WindowTokenizer,
    question: str,
    context: str,
    room: int,
    data: st.DataObject,
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in (question, context)]
    if not all(lengths):
        with pytest.raises(InvalidInputError, match="is empty"):
            tokenize(question, context, max_seq_len=64, doc_stride=0)
        return
    max_seq_len = lengths[0] + 3 + room
    doc_stride = data.draw(st.integers(0, room - 1))
    expected = transformers_windows(transformers_tokenizer(tokenizer_file), question, context, max_seq_len, doc_stride)
    assert_same_windows(tokenize(question, context, max_seq_len=max_seq_len, doc_stride=doc_stride), expected)


@pytest.mark.parametrize("name", CONTRACT["contexts"])
def test_windows_of_the_real_tokenizer_are_those_of_transformers(checkpoint: Path, name: str) -> None:
    tokenize = WindowTokenizer(checkpoint / "tokenizer.json")
    tokenizer = transformers_tokenizer(checkpoint / "tokenizer.json")
    context = CONTRACT["contexts"][name]
    for max_seq_len, doc_stride in ((384, 128), (60, 20), (33, 0)):
        expected = transformers_windows(tokenizer, "Who is it?", context, max_seq_len, doc_stride)
        assert_same_windows(tokenize("Who is it?", context, max_seq_len=max_seq_len, doc_stride=doc_stride), expected)


def test_threads_share_a_tokenizer(tokenize: WindowTokenizer) -> None:
    def ids(size: int) -> list[list[int]]:
        windows = tokenize("abc?", "abc def ghi " * 30, max_seq_len=20 + size, doc_stride=size)
        return [window.encoding.ids for window in windows]

    sizes = [i % 12 for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ids, sizes)) == [ids(size) for size in sizes]


def test_the_files_own_truncation_and_padding_are_ignored(tokenizer_file: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (window,) = WindowTokenizer(tmp_path / "tokenizer.json")("ab", "cd ef gh", max_seq_len=64, doc_stride=0)
    assert len(window) == 2 + 6 + 3
    given = WindowTokenizer(tokenizer)("ab", "cd ef gh", max_seq_len=64, doc_stride=0)
    assert [own.encoding.ids for own in given] == [window.encoding.ids]
    assert tokenizer.truncation["max_length"] == 5  # what was given stays as it is
    assert tokenizer.padding["length"] == 50


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_an_unreadable_tokenizer_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleCorruptError, match=r"tokenizer\.json is not a readable tokenizer: .*again"):
        WindowTokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("question", "context", "doc_stride", "message"),
    [
        ("", "abc", 0, "question is empty"),
        ("abc", "", 0, "context is empty"),
        (" \n", "abc", 0, "question is empty"),
        (None, "abc", 0, "question must be a string, not NoneType"),
        ("abc", b"abc", 0, "context must be a string, not bytes"),
        ("abc", "abc \ud800", 0, "context is not valid Unicode"),
        (
            "abcdefghijklmnopq",
            "abc",
            0,
            "question is too long: its 17 tokens and 3 special ones leave no room for the context in max_seq_len=20",
        ),
    ],
)
def test_bad_input(tokenize: WindowTokenizer, question: str, context: str, doc_stride: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tokenize(question, context, max_seq_len=20, doc_stride=doc_stride)


@pytest.mark.parametrize(("doc_stride", "shared"), [(9, 9), (10, 5), (20, 5)])
def test_an_overlap_that_the_question_leaves_no_room_for_shrinks(
    tokenize: WindowTokenizer, doc_stride: int, shared: int
) -> None:
    windows = tokenize("abcdefg", "abc" * 10, max_seq_len=20, doc_stride=doc_stride)  # leaves room for 10 of 30
    offsets = [window.encoding.offsets[window.context] for window in windows]
    assert all(before[-shared:] == after[:shared] for before, after in pairwise(offsets))
    assert len(windows) == 1 + -(-20 // (10 - shared))
    assert {start for own in offsets for start, _ in own} == set(range(30))


@given(tokens=st.integers(1, 16), context=st.integers(1, 60), doc_stride=st.integers(0, 20))
def test_only_a_question_that_fills_the_window_is_refused(
    tokenize: WindowTokenizer, tokens: int, context: int, doc_stride: int
) -> None:
    windows = tokenize("q" * tokens, "a" * context, max_seq_len=20, doc_stride=doc_stride)
    assert max(map(len, windows)) <= 20
    assert windows[-1].encoding.offsets[windows[-1].context][-1][1] == context


def test_window_size_takes_numpy_integers() -> None:
    size, stride = window_size(512, np.int64(100), np.int8(100))
    assert (size, stride) == (100, 100)
    assert type(size) is type(stride) is int


def test_window_size_defaults() -> None:
    assert window_size(512) == (384, 128)
    assert window_size(64) == (64, 32)
    assert window_size(512, 100) == (100, 50)
    assert window_size(512, 512, 0) == (512, 0)


@pytest.mark.parametrize(
    ("max_seq_len", "doc_stride", "message"),
    [
        (0, None, "max_seq_len must be an int of at least 1, not 0"),
        (100.5, None, r"max_seq_len must be an int of at least 1, not 100\.5"),
        (True, None, "not True"),
        (513, None, "max_seq_len=513 is more than the 512"),
        (100, -1, "doc_stride must be an int of at least 0, not -1"),
        (100, "3", "not '3'"),
        (100, 101, "doc_stride=101 is larger than max_seq_len=100"),
    ],
)
def test_bad_window_size(max_seq_len: int, doc_stride: int | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        window_size(512, max_seq_len, doc_stride)
