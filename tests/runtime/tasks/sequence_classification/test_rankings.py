"""Measures of rankings, compared with scikit-learn's, and the files that rankings are read from."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from dynamic_tinybert.runtime import Reranker
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import ndcg, reciprocal_rank
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_evaluation import evaluate_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import (
    Ranking,
    is_ranking_file,
    read_rankings,
)

from support.classifiers import classifier_bundle, texts, tiny_classifier


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.integers(1, 12))
def test_ndcg_is_that_of_scikit_learn(grades: list[int], top: int) -> None:
    scores = -np.arange(len(grades))[None]
    expected = ndcg_score(np.array(grades)[None], scores, k=top)
    assert ndcg(grades, top) == pytest.approx(expected, abs=1e-12)


@given(st.integers(2, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_the_reciprocal_rank_of_one_relevant_document(case: tuple[int, int]) -> None:
    """With one relevant document it is the average precision."""
    count, relevant = case
    grades = [float(i == relevant) for i in range(count)]
    expected = label_ranking_average_precision_score(np.array(grades)[None], -np.arange(count)[None])
    assert reciprocal_rank(grades, count) == pytest.approx(expected)
    assert reciprocal_rank(grades) == (pytest.approx(expected) if relevant < 10 else 0)


def test_rankings_without_a_relevant_document_score_0() -> None:
    assert ndcg([0, 0, 0]) == reciprocal_rank([0, 0, 0]) == 0
    assert ndcg([0.0] * 10 + [1.0]) == reciprocal_rank([0.0] * 10 + [1.0]) == 0
    assert ndcg([2, 1, 0]) == 1


def test_files_of_rankings(tmp_path: Path) -> None:
    rows = [
        {"corpus": ["x", "y", "z"]},
        {"id": 7, "query": "q", "documents": [2, 0], "relevant": [1], "group": "g"},
        {"query": "r", "documents": ["own", 1, "more"], "grades": [0, 2, 0.5]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "r.jsonl").write_text(text)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("r.jsonl", "r.jsonl.gz"):
        assert is_ranking_file(tmp_path / name)
        assert read_rankings(tmp_path / name) == [
            Ranking("7", "q", ("z", "x"), (0.0, 1.0), "g"),
            Ranking("2", "r", ("own", "y", "more"), (0.0, 2.0, 0.5)),
        ]
        assert len(read_rankings(tmp_path / name, limit=1)) == 1
    (tmp_path / "t.jsonl").write_text('{"text": "q"}\n')
    (tmp_path / "t.tsv").write_text(text)
    assert not any(is_ranking_file(tmp_path / name) for name in ("t.jsonl", "t.tsv", "none.jsonl"))
    with pytest.raises(InvalidInputError, match="limit"):
        read_rankings(tmp_path / "r.jsonl", limit=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"documents": ["a"], "relevant": [0]}, "no text 'query'"),
        ({"query": "q", "relevant": [0]}, "no list 'documents'"),
        ({"query": "q", "documents": [], "relevant": []}, "has no documents"),
        ({"query": "q", "documents": ["a", 3], "relevant": []}, "a document must be a text, not 3"),
        ({"query": "q", "documents": ["a"]}, "no list 'relevant'"),
        ({"query": "q", "documents": ["a"], "relevant": [1]}, "indices of the 1 documents, not 1"),
        ({"query": "q", "documents": ["a"], "relevant": [True]}, "indices of the 1 documents, not True"),
        ({"query": "q", "documents": ["a"], "grades": [1, 2]}, "'grades' must be 1 numbers of at least 0"),
        ({"query": "q", "documents": ["a"], "grades": [-1]}, "'grades' must be 1 numbers of at least 0"),
        ({"query": "q", "documents": ["a"], "grades": [True]}, "'grades' must be 1 numbers of at least 0"),
        ({"query": "q", "documents": ["a"], "grades": [10**400]}, "'grades' must be 1 numbers .*, not 1000"),
        (
            {"query": "q", "documents": ["a"], "grades": [2e30]},
            "'grades' must be 1 numbers .* at most 1e.30, .*, not 2e",
        ),
        ({"query": "q", "documents": ["a"], "grades": [float("nan")]}, "'grades' must be 1 numbers .*, not nan"),
        ({"query": "q", "documents": ["a"], "grades": [float("inf")]}, "'grades' must be 1 numbers .*, not inf"),
    ],
)
def test_what_is_no_ranking_is_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    file = tmp_path / "r.jsonl"
    good = {"query": "q", "documents": ["a"], "relevant": [0]}
    file.write_text("".join(json.dumps(own) + "\n" for own in (good, row)))
    with pytest.raises(DataError, match=rf"r.jsonl, line 2.*{message}"):
        read_rankings(file)


def test_numbers_beyond_floats_are_no_grades(tmp_path: Path) -> None:
    """JSON's reader makes infinity of 1e999. Large grades that are accepted have finite measures."""
    file = tmp_path / "r.jsonl"
    file.write_text('{"query": "q", "documents": ["a", "b"], "grades": [0, 1e999]}\n')
    with pytest.raises(DataError, match=r"'grades' must be 2 numbers .*, not inf"):
        read_rankings(file)
    file.write_text(json.dumps({"query": "q", "documents": ["a"] * 20, "grades": [0, *[1e30] * 19]}) + "\n")
    (ranking,) = read_rankings(file)
    assert 0 < ndcg(ranking.grades) < 1
    assert np.isfinite(np.sum(ranking.grades, dtype=np.float32))


def test_a_column_of_texts_named_corpus_makes_no_ranking(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "a b", "label": 1, "corpus": "web"}\n')
    assert not is_ranking_file(file)


def test_judgements_may_be_left_out_where_they_are_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    rows = [{"query": "q", "documents": ["a", "b"]}, {"query": "q", "documents": ["a", "b"], "grades": [0, 2]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [own.grades for own in read_rankings(file, judged=False)] == [(0, 0), (0, 2)]
    file.write_text('{"query": "q", "documents": ["a", "b"], "grades": [0]}\n')
    with pytest.raises(DataError, match="'grades' must be 2 numbers"):
        read_rankings(file, judged=False)


def test_rankings_are_evaluated(tmp_path: Path) -> None:
    folder = classifier_bundle(tmp_path / "b", tiny_classifier(1), {"half": LengthConfig((0.5, 0.2, 0.2))})
    reranker = Reranker.from_pretrained(folder)
    documents = tuple(texts(15))
    order = [own["corpus_id"] for own in reranker.rank("who was", documents, length_config="half")]
    rankings = [
        Ranking(str(rank), "who was", documents, tuple(float(i == order[rank]) for i in range(15)))
        for rank in (0, 2, 12)
    ]
    result = evaluate_rankings(reranker, rankings, length_config="half")
    assert result.orders == (tuple(order),) * 3
    assert result.query_mrr == pytest.approx((100, 100 / 3, 0))
    assert result.query_ndcg == pytest.approx((100, 50, 0))
    assert result.means == pytest.approx({"ndcg@10": 50, "mrr@10": 400 / 9})
    assert len(result.query_ms) == 3
    assert all(ms > 0 for ms in result.query_ms)
    assert result.to_dict()["latency_p50_ms"] == result.latency_ms(50)
    with pytest.raises(DataError, match="no rankings"):
        evaluate_rankings(reranker, [])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Ranking("q7", "who", ("a", ""), (1, 0)), "^ranking q7: document 1 of 2, counted from 0: document is empty"),
        (Ranking("q7", "", ("a",), (1,)), "^ranking q7: query is empty"),
        (Ranking("q7", "a b c " * 42, ("a", "b"), (1, 0)), "^ranking q7: the query is too long"),
    ],
)
def test_a_faulty_ranking_is_named_before_any_is_run(
    bad: Ranking, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = Reranker.from_pretrained(classifier_bundle(tmp_path / "b", tiny_classifier(1)))
    monkeypatch.setattr(reranker, "rank", lambda *given, **options: pytest.fail("a query ran"))
    good = Ranking("1", "who", ("a", "b"), (1, 0))
    with pytest.raises(DataError, match=message):
        evaluate_rankings(reranker, [good, good, bad])
