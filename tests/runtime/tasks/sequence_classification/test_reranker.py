"""Reranker ranks as sentence-transformers' CrossEncoder does, and reads long documents in windows."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

from dynamic_tinybert import Reranker, TextClassifier
from dynamic_tinybert.runtime.common.errors import BundleFormatError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.classifiers import WORDS, classifier_bundle, texts, tiny_classifier, transformers_tokenizer

IDENTITY = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}}
QUERY = "who was in the b"
TOKENIZER = transformers_tokenizer()


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return tiny_classifier(1)


@pytest.fixture(scope="module")
def reranker(model: BertForSequenceClassification, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    folder = classifier_bundle(tmp_path_factory.mktemp("b"), model, {"half": LengthConfig((0.5, 0.2, 0.2))})
    return Reranker.from_pretrained(folder, precision="f32")


def cross_encoder(
    model: BertForSequenceClassification, pairs: Sequence[tuple[str, str]], activation: torch.nn.Module
) -> npt.NDArray[np.float32]:
    """What `CrossEncoder.predict` computes: batches of 32 in the given order, cut to the model's length."""
    scores = []
    for first in range(0, len(pairs), 32):
        batch = pairs[first : first + 32]
        features = TOKENIZER([list(pair) for pair in batch], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores += [own[0] for own in activation(model(**features, return_dict=True).logits)]
    return np.asarray([score.numpy() for score in scores])


def cross_encoder_rank(scores: npt.NDArray[np.float32], documents: Sequence[str]) -> list[dict[str, Any]]:
    """What `CrossEncoder.rank` makes of scores."""
    results = [{"corpus_id": i, "score": score, "text": documents[i]} for i, score in enumerate(scores)]
    return sorted(results, key=lambda result: result["score"], reverse=True)


def test_scores_and_order_are_those_of_a_cross_encoder(
    reranker: Reranker, model: BertForSequenceClassification
) -> None:
    documents = texts(70)
    pairs = [(QUERY, document) for document in documents]
    expected = cross_encoder(model, pairs, torch.nn.Sigmoid())
    scores = reranker.predict(pairs)
    assert scores.dtype == np.float32
    assert scores.shape == (70,)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    found = reranker.rank(QUERY, documents, return_documents=True)
    wanted = cross_encoder_rank(expected, documents)
    assert [list(own) for own in found] == [["corpus_id", "score", "text"]] * 70
    assert [own["corpus_id"] for own in found] == [own["corpus_id"] for own in wanted]
    assert [own["text"] for own in found] == [own["text"] for own in wanted]
    assert [own["score"] for own in found] == pytest.approx([own["score"] for own in wanted], abs=1e-4)
    assert type(found[0]["score"]) is float
    top = reranker.rank(QUERY, documents, 10)
    assert [own["corpus_id"] for own in top] == [own["corpus_id"] for own in found[:10]]
    assert all(list(own) == ["corpus_id", "score"] for own in top)
    one = reranker.predict(pairs[3])
    assert one.shape == ()
    assert float(one) == pytest.approx(scores[3], abs=1e-5)
    assert len(reranker.rank(QUERY, documents[:3], top_n=10)) == 3


def test_the_activation_is_that_of_the_checkpoint(model: BertForSequenceClassification, tmp_path: Path) -> None:
    folder = classifier_bundle(tmp_path / "b", tiny_classifier(1, **IDENTITY))
    pairs = [(QUERY, document) for document in texts(5)]
    logits = cross_encoder(model, pairs, torch.nn.Identity())
    np.testing.assert_allclose(Reranker.from_pretrained(folder, precision="f32").predict(pairs), logits, atol=1e-4)
    given = Reranker.from_pretrained(folder, precision="f32", function_to_apply="sigmoid")
    np.testing.assert_allclose(given.predict(pairs), 1 / (1 + np.exp(-logits)), atol=1e-4)
    again = pickle.loads(pickle.dumps(given))
    np.testing.assert_array_equal(again.predict(pairs), given.predict(pairs))
    with pytest.raises(InvalidInputError, match="the softmax of one output is always 1"):
        Reranker.from_pretrained(folder, function_to_apply="softmax")


def test_the_default_function_is_that_of_the_checkpoint_by_either_name(tmp_path: Path) -> None:
    folder = classifier_bundle(tmp_path / "b", tiny_classifier(1, **IDENTITY))
    pairs = [(QUERY, document) for document in texts(5)]
    logits = Reranker.from_pretrained(folder, function_to_apply="none").predict(pairs)
    for function in (None, "default"):
        reranker = Reranker.from_pretrained(folder, function_to_apply=function)
        np.testing.assert_array_equal(reranker.predict(pairs), logits)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(reranker)).predict(pairs), logits)


def test_a_bundle_with_another_activation_is_usable_with_a_function(tmp_path: Path) -> None:
    tanh = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}
    folder, plain = (
        classifier_bundle(tmp_path / name, tiny_classifier(1, **own)) for name, own in (("t", tanh), ("p", {}))
    )
    pairs = [(QUERY, document) for document in texts(5)]
    for known in ("none", "sigmoid"):
        expected = Reranker.from_pretrained(plain, function_to_apply=known).predict(pairs)
        found = Reranker.from_pretrained(folder, function_to_apply=known).predict(pairs)
        np.testing.assert_array_equal(found, expected)
    assert TextClassifier.from_pretrained(folder)("a b") == TextClassifier.from_pretrained(plain)("a b")
    for function in (None, "default"):
        with pytest.raises(BundleFormatError, match=r"Tanh' is not known; known ones are Identity, Sigmoid; give func"):
            Reranker.from_pretrained(folder, function_to_apply=function)


def test_large_logits_are_ranked_though_their_sigmoids_are_equal(tmp_path: Path) -> None:
    """As float32 rounds them; the order is that of the logits, with and without `top_n`."""
    model = tiny_classifier(1)
    model.classifier.weight.data.mul_(20)
    model.classifier.bias.data.add_(100)
    reranker = Reranker.from_pretrained(classifier_bundle(tmp_path / "b", model), precision="f32")
    documents = texts(30)
    logits = Reranker(reranker.model, function_to_apply="none").predict([(QUERY, text) for text in documents])
    assert logits.min() > 20
    assert len(set(logits.tolist())) == 30
    order = np.argsort(-logits).tolist()
    assert order != list(range(30))
    for top_n in (None, 30, 7):
        found = reranker.rank(QUERY, documents, top_n)
        assert [own["corpus_id"] for own in found] == order[:top_n]
        assert {own["score"] for own in found} == {1.0}


def test_the_best_window_of_a_long_document_counts(reranker: Reranker, model: BertForSequenceClassification) -> None:
    words = [word for text in texts(20) for word in text.split()]
    document = " ".join(words[:300])
    query_tokens = len(TOKENIZER(QUERY, add_special_tokens=False)["input_ids"])
    room = 40 - query_tokens - 3
    stretches = []
    for first in range(0, 300, room - 8):  # a token for each of these words
        stretches.append(" ".join(words[first : min(300, first + room)]))
        if first + room >= 300:
            break
    assert len(stretches) > 10
    expected = cross_encoder(model, [(QUERY, stretch) for stretch in stretches], torch.nn.Sigmoid())
    found = reranker.predict([(QUERY, document), (QUERY, stretches[0])], max_seq_len=40, doc_stride=8)
    np.testing.assert_allclose(found, [expected.max(), expected[0]], atol=1e-4)
    whole = reranker.rank(QUERY, [document, stretches[0]])  # the default reads 128 tokens at once
    assert whole[0]["score"] != pytest.approx(found[0], abs=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=12))
def test_rankings_are_sorted_and_complete(reranker: Reranker, documents: list[str]) -> None:
    """Whatever the documents; equal ones have equal scores and stay in order."""
    documents += documents[:2]
    found = reranker.rank(QUERY, documents, length_config="half", return_documents=True)
    assert sorted(own["corpus_id"] for own in found) == list(range(len(documents)))
    keys = [(-own["score"], own["corpus_id"]) for own in found]
    assert keys == sorted(keys)
    by_text: dict[str, set[float]] = {}
    for own in found:
        assert own["text"] == documents[own["corpus_id"]]
        by_text.setdefault(own["text"], set()).add(own["score"])
    assert all(len(scores) == 1 for scores in by_text.values())


def test_equal_documents_are_computed_once(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    model = reranker.model

    def counting(input_ids: npt.NDArray[np.int64], **options: Any) -> object:  # noqa: ANN401
        rows.append(len(input_ids))
        return model(input_ids, **options)

    monkeypatch.setattr(reranker, "model", type("Counting", (), {
        "__call__": lambda self, **options: counting(**options), "bundle": model.bundle, "max_length": model.max_length,
    })())  # fmt: skip
    documents = texts(5)
    scores = reranker.rank(QUERY, [*documents, *documents, documents[0]])
    assert sum(rows) == 5
    assert len(scores) == 11


@pytest.mark.parametrize(
    ("query", "documents", "options", "message"),
    [
        (QUERY, [], {}, "there are no documents; give at least one"),
        (QUERY, "the a", {}, "documents must be a list, not str"),
        (QUERY, {"a"}, {}, "documents must be a list, not set"),
        (QUERY, None, {}, "documents must be a list, not NoneType"),
        (QUERY, ["a", ""], {}, "document 1 of 2, counted from 0: document is empty"),
        (QUERY, ["a", None], {}, "document 1 of 2, counted from 0: document must be a string, not NoneType"),
        (QUERY, ["a", ["b"]], {}, "document 1 of 2, counted from 0: document must be a string, not list"),
        ("", ["a"], {}, "query is empty"),
        (None, ["a", "b"], {}, "^query must be a string, not NoneType"),
        (["a"], ["a", "b"], {}, "^query must be a string, not list"),
        ("a b c " * 42, ["a", "b"], {}, "^the query is too long: its 126 tokens and 3 special ones leave no room"),
        (QUERY, ["a"], {"max_seq_len": 8}, "the query is too long: its 5 tokens"),
        (QUERY, ["a"], {"max_seq_len": 129}, "max_seq_len=129 is more than the 128 tokens this model reads"),
        (QUERY, ["a"], {"top_n": 0}, "top_n must be an int of at least 1"),
        (QUERY, ["a"], {"batch_size": 0}, "batch_size"),
        (QUERY, ["\ud800"], {}, "document is not valid Unicode"),
    ],
)
def test_bad_input(reranker: Reranker, query: Any, documents: Any, options: dict[str, Any], message: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError, match=message):
        reranker.rank(query, documents, **options)


@pytest.mark.parametrize("pairs", [[("a", "b", "c")], [("a",)], ["a b"], [("a", "b"), 3]])
def test_what_is_no_pair_is_refused(reranker: Reranker, pairs: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError, match="counted from 0, must be a query and a document"):
        reranker.predict(pairs)


def test_arrays_of_pairs_are_pairs(reranker: Reranker) -> None:
    documents = texts(4)
    pairs = [(QUERY, document) for document in documents]
    expected = reranker.predict(pairs)
    for kind in (object, str):
        array = np.array(pairs, dtype=kind)
        np.testing.assert_array_equal(reranker.predict(array), expected)
        np.testing.assert_array_equal(reranker.predict(list(array)), expected)
        np.testing.assert_array_equal(reranker.predict(array[:2]), expected[:2])  # two pairs, not one
        np.testing.assert_array_equal(reranker.predict(array[:1]), expected[:1])
        one = reranker.predict(array[0])
        assert one.shape == ()
        assert one == pytest.approx(expected[0], abs=1e-5)
        ranked = reranker.rank(QUERY, np.array(documents, dtype=kind))
        assert ranked == reranker.rank(QUERY, documents)
    for wrong, message in (
        (np.zeros((3, 2)), r"pair 0 of 3, counted from 0, must be a query and a document, not array"),
        (np.array([["a", "b", "c"]]), "pair 0 of 1, counted from 0, must be a query and a document"),
        (np.array([["a", "b"], ["c", None]], dtype=object), "pair 1 of 2, counted from 0: document must be a string"),
        (np.array("a"), "pairs must be a list, not a single <U1"),
        (np.array([]), "there are no pairs"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            reranker.predict(wrong)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("", "a"), "query is empty"),
        ((None, "a"), "query must be a string, not NoneType"),
        (("a", ""), "document is empty"),
        (("a b c " * 42, "a"), "the query is too long: its 126 tokens"),
    ],
)
def test_a_faulty_pair_is_named(reranker: Reranker, bad: Any, message: str) -> None:  # noqa: ANN401
    pairs = [("a", text) for text in texts(6)]
    with pytest.raises(InvalidInputError, match=f"^pair 5 of 7, counted from 0: {message}"):
        reranker.predict([*pairs[:5], bad, pairs[5]])
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        reranker.predict([bad])


def test_what_cannot_be_ranked_is_found_without_running_it(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(reranker.model), "__call__", lambda *given, **options: pytest.fail("the model ran"))
    reranker.check(QUERY, texts(5))
    with pytest.raises(InvalidInputError, match="document 1 of 2, counted from 0: document is empty"):
        reranker.check(QUERY, ["a", ""])


def test_models_with_several_outputs_are_refused(tmp_path: Path) -> None:
    folder = classifier_bundle(tmp_path / "b", tiny_classifier(3))
    with pytest.raises(InvalidInputError, match="3 outputs, and a ranking needs one score; use TextClassifier for it"):
        Reranker.from_pretrained(folder)
