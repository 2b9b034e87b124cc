"""BM25 within a list of documents, compared with a plain one and with the package bm25s."""

import math
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.runtime.tasks.sequence_classification.pair_windows import pair_windows
from dynamic_tinybert.runtime.tasks.sequence_classification.word_match import bm25
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.classifiers import WORDS, texts

QUERY = "who was in the a the"


@pytest.fixture
def tokenize(tiny_checkpoint: Path) -> WindowTokenizer:
    return WindowTokenizer(tiny_checkpoint / "tokenizer.json", ("query", "document"))


def windows(tokenize: WindowTokenizer, query: str, documents: list[str]) -> list[Window]:
    """As the reranker makes them."""
    found = pair_windows(tokenize, [(query, text) for text in documents], "document", max_seq_len=60, doc_stride=5)
    return [window for own in found.values() for window in own]


def test_it_is_bm25_of_the_tokens(tokenize: WindowTokenizer) -> None:
    documents = texts(30)
    assert all(len(tokenize.second(text)) == len(text.split()) for text in documents)  # a token for each word
    words = [text.split() for text in documents]
    mean = sum(map(len, words)) / len(words)
    expected = []
    for own in words:
        score = 0.0
        for term in sorted(set(QUERY.split())):
            containing = sum(term in other for other in words)
            rarity = math.log(1 + (len(words) - containing + 0.5) / (containing + 0.5))
            count = own.count(term)
            score += rarity * count * 2.5 / (count + 1.5 * (0.25 + 0.75 * len(own) / mean))
        expected.append(score)
    np.testing.assert_allclose(bm25(windows(tokenize, QUERY, documents)), expected, rtol=1e-5)


def test_it_is_that_of_bm25s(tokenize: WindowTokenizer) -> None:
    bm25s = pytest.importorskip("bm25s", reason="bm25s is not installed; the extra `benchmarks` brings it")
    documents = texts(40, seed=2)
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index([text.split() for text in documents], show_progress=False)
    terms = sorted(set(QUERY.split()))
    found = bm25(windows(tokenize, QUERY, documents))
    # Lucene leaves out the constant factor (k1 + 1).
    np.testing.assert_allclose(found / 2.5, index.get_scores(terms), rtol=1e-4)


def test_every_window_of_a_long_document_has_a_score_of_its_own(tokenize: WindowTokenizer) -> None:
    own = windows(tokenize, "1 2", [" ".join(["a"] * 70 + ["1"] * 30), "b b b"])
    assert len(own) == 3
    scores = bm25(own)
    assert scores[0] == 0  # its words come in the second window
    assert scores[1] > 0
    assert scores[-1] == 0


def test_words_that_no_document_has_and_a_single_document(tokenize: WindowTokenizer) -> None:
    assert bm25(windows(tokenize, WORDS[-1], ["who was", "in the"])).tolist() == [0, 0]
    assert np.isfinite(bm25(windows(tokenize, QUERY, ["who was"]))).all()
