"""TextClassifier has the contract of transformers' text-classification pipeline."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from dynamic_tinybert import LengthAdaptiveModel, QuestionAnswerer, Reranker, TextClassifier
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.files import size_and_digest
from dynamic_tinybert.runtime.common.errors import BundleFormatError, InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.classifiers import classifier_bundle, texts, tiny_classifier, transformers_tokenizer
from support.manifests import rewrite_manifest
from support.tiny import tiny_bundle

KINDS: dict[str, dict[str, Any]] = {
    "classes": {"id2label": {0: "bad", 1: "fair", 2: "good"}},
    "two classes": {"labels": 2},
    "one output": {"labels": 1},
    "regression": {"labels": 1, "problem_type": "regression"},
    "several labels": {"labels": 4, "problem_type": "multi_label_classification"},
}
PAIR = {"text": "who was in", "text_pair": "the a was in the b"}
INPUTS: list[Any] = [
    "the a was in",
    ["the a was in"],
    ["the a was in", "what b", "where"],
    PAIR,
    [PAIR, {"text": "the b"}],
]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextClassifier, Any]:
    """Ours and theirs."""
    model = tiny_classifier(**KINDS[request.param])
    folder = classifier_bundle(tmp_path_factory.mktemp("b"), model)
    tokenizer = transformers_tokenizer()
    theirs = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    return TextClassifier.from_pretrained(folder, precision="f32"), theirs


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    folder = classifier_bundle(tmp_path_factory.mktemp("b"), tiny_classifier(), {"half": LengthConfig((0.5, 0.2, 0.2))})
    return TextClassifier.from_pretrained(folder, precision="f32")


def same(found: Any, expected: Any) -> None:  # noqa: ANN401
    """The same shape, the same labels, and scores to 1e-4."""
    assert type(found) is type(expected)
    if isinstance(found, list):
        assert len(found) == len(expected)
        for own, other in zip(found, expected, strict=True):
            same(own, other)
    else:
        assert list(found) == list(expected) == ["label", "score"]
        assert found["label"] == expected["label"]
        assert type(found["score"]) is float
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("inputs", INPUTS, ids=["text", "one of a list", "several", "pair", "pairs"])
def test_results_are_those_of_the_pipeline(pair: tuple[TextClassifier, Any], inputs: Any) -> None:  # noqa: ANN401
    ours, theirs = pair
    same(ours(inputs), theirs(inputs))
    for top_k in (1, 2, None):
        same(ours(inputs, top_k=top_k), theirs(inputs, top_k=top_k))
    for function in ("sigmoid", "softmax", "none", "SOFTMAX"):
        same(ours(inputs, function_to_apply=function), theirs(inputs, function_to_apply=function))


def test_labels_with_equal_scores_are_in_the_order_of_their_logits(tmp_path: Path) -> None:
    """Sigmoids of large logits, and softmaxes of small ones, are the same number in float32."""
    model = tiny_classifier(**KINDS["several labels"])
    model.classifier.weight.data.zero_()
    model.classifier.bias.data[:] = torch.tensor([30.0, 60.0, -150.0, -120.0])
    classifier = TextClassifier.from_pretrained(classifier_bundle(tmp_path / "b", model))
    for function, scores in (("sigmoid", [1, 1, 0, 0]), ("softmax", [1, 0, 0, 0]), ("none", [60, 30, -120, -150])):
        (found,) = classifier.classify_batch("a b", function_to_apply=function)
        assert [own["label"] for own in found] == ["LABEL_1", "LABEL_0", "LABEL_3", "LABEL_2"]
        assert [own["score"] for own in found] == pytest.approx(scores, abs=1e-4)
    ((best,),) = classifier.classify_batch("a b", function_to_apply="sigmoid", top_k=1)
    assert best["label"] == "LABEL_1"


def test_long_texts_are_cut_only_if_asked(pair: tuple[TextClassifier, Any]) -> None:
    ours, theirs = pair
    long = {"text": "a b c " * 30, "text_pair": "d e f " * 40}
    same(ours(long, truncation=True), theirs(long, truncation=True))
    with pytest.raises(InvalidInputError, match=r"has 213 tokens, and this model reads 128.*truncation=True"):
        ours(long)


def test_batches_and_length_configurations(classifier: TextClassifier) -> None:
    some = texts(30)
    every = classifier.classify_batch(some)
    assert [len(own) for own in every] == [3] * 30
    one_by_one = [classifier.classify_batch(text)[0] for text in some]
    for batch_size in (1, 4, 100):
        same(classifier.classify_batch(some, batch_size=batch_size), one_by_one)
    half = classifier(some, top_k=1, length_config="half")
    assert half == classifier(some, top_k=1, length_config=LengthConfig((0.5, 0.2, 0.2)))
    assert half != classifier(some, top_k=1, length_config="full")
    assert classifier(iter(some[:2])) == classifier(some[:2])
    assert classifier([]) == []
    again = pickle.loads(pickle.dumps(classifier))
    assert again(some[:3]) == classifier(some[:3])


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("", {}, "text is empty"),
        (["a", " "], {}, "item 1 of 2, counted from 0: text is empty"),
        (["a", 3], {}, "item 1 of 2, counted from 0: 3 is neither a text nor a mapping"),
        ([["a", "b"]], {}, r"give a pair of texts as {'text': …, 'text_pair': …}"),
        ({"text": "a", "pair": "b"}, {}, r"must have the keys 'text' and perhaps 'text_pair', not \['pair', 'text'\]"),
        ({"text_pair": "b"}, {}, "must have the keys"),
        (3, {}, "give a text, a mapping, or a list of them, not int"),
        (b"a", {}, "not bytes"),
        ({"a", "b"}, {}, "not set"),
        ("a", {"top_k": 0}, "top_k must be an int of at least 1, not 0"),
        ("a", {"batch_size": 0}, "batch_size"),
        ("a", {"function_to_apply": "tanh"}, "function_to_apply must be one of"),
        ("\ud800", {}, "not valid Unicode"),
    ],
)
def test_bad_input(classifier: TextClassifier, inputs: Any, options: dict[str, Any], message: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError, match=message):
        classifier(inputs, **options)
    with pytest.raises(LengthConfigError, match="unknown length configuration 'no'"):
        classifier("a", length_config="no")


def test_models_of_other_tasks_are_refused_by_the_name_of_their_class(
    classifier: TextClassifier, tmp_path: Path
) -> None:
    answering = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "qa"))
    for cls in (TextClassifier, Reranker):
        with pytest.raises(InvalidInputError, match=r"is for 'question_answering', .*use QuestionAnswerer for it"):
            cls(answering)
    with pytest.raises(InvalidInputError, match=r"use TextClassifier or, if it has one output, Reranker for it"):
        QuestionAnswerer(classifier.model)


def test_labels_that_do_not_fit_the_graph_are_refused(tmp_path: Path) -> None:
    folder = classifier_bundle(tmp_path / "b", tiny_classifier(3))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"LABEL_2"', '"LABEL_2", "3": "LABEL_3"', 1))
    digest = size_and_digest(folder / "config.json")
    rewrite_manifest(folder, lambda manifest: manifest["files"].update({"config.json": digest}))
    assert open_bundle(folder).task == "sequence_classification"
    with pytest.raises(BundleFormatError, match=r"has 3 outputs, but its config.json has 4 labels"):
        TextClassifier.from_pretrained(folder)("a b")


def test_scores_of_classes_sum_to_1(classifier: TextClassifier) -> None:
    (scores,) = classifier.classify_batch("the a")
    assert np.sum([own["score"] for own in scores]) == pytest.approx(1)
