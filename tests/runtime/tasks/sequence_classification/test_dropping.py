"""With early heads, `rank` runs fewer documents, and returns what it returns without, if the margin is wide."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert import LengthAdaptiveModel, Reranker
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.manifest import as_json, read_manifest, seal
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.stages import StagedModel
from dynamic_tinybert.runtime.tasks.sequence_classification.competition import staying
from dynamic_tinybert.runtime.tasks.sequence_classification.dropping import start
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import (
    DOCUMENT_DROPPING,
    EarlyHead,
    early_heads_of,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.word_match import bm25

from support.classifiers import classifier_bundle, texts, tiny_classifier
from support.rankings import put_heads, random_head

QUERY = "who was in the b"
WIDE, NARROW = 1e6, 0.05
LONG = " ".join(texts(30, seed=9))
DOCUMENTS = [*texts(60), LONG, *texts(5, seed=3), texts(60)[7], LONG]
CONFIGS = {"half": LengthConfig((0.5, 0.2, 0.2)), "words": LengthConfig((0.5, 0.2, 0.2))}


def reranker(folder: Path, heads: Mapping[str, EarlyHead]) -> Reranker:
    bundle = classifier_bundle(folder, tiny_classifier(1), CONFIGS)
    return Reranker.from_pretrained(put_heads(bundle, heads), precision="f32")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """Nothing is dropped, though in two stages."""
    margins = {3: WIDE, 10: WIDE, 50: WIDE}
    return reranker(tmp_path_factory.mktemp("wide"), {"full": random_head(0, margins), "half": random_head(2, margins)})


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    heads = {
        "full": random_head(2, {3: NARROW, 10: NARROW}),
        "half": random_head(1, {10: NARROW}),
        "words": random_head(0, {10: NARROW}),
    }
    return reranker(tmp_path_factory.mktemp("narrow"), heads)


def plain(found: list[Any]) -> tuple[list[int], list[float], list[str]]:
    return [own["corpus_id"] for own in found], [own["score"] for own in found], [own["text"] for own in found]


@pytest.mark.parametrize("top_n", [1, 3, 4, 10, 11, 50, 51, 100])
@pytest.mark.parametrize("config", ["full", "half", None])
def test_with_a_wide_margin_it_is_the_ranking_without_dropping(wide: Reranker, top_n: int, config: str | None) -> None:
    options: dict[str, Any] = {"return_documents": True, "length_config": config}
    ids, scores, found = plain(wide.rank(QUERY, DOCUMENTS, top_n, **options))
    all_ids, all_scores, all_found = plain(wide.rank(QUERY, DOCUMENTS, top_n, drop_documents=False, **options))
    assert (ids, found) == (all_ids, all_found)
    assert scores == pytest.approx(all_scores, abs=1e-5)
    assert len(ids) == min(top_n, len(DOCUMENTS))


@pytest.mark.parametrize(
    ("config", "places", "top_n"), [("full", 3, 2), ("full", 10, 8), ("half", 10, 1), ("words", 10, 4)]
)
def test_documents_that_lag_behind_do_not_run_to_the_end(
    narrow: Reranker, config: str, places: int, top_n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents that run are those of `staying`, computed from the early scores of all of them."""
    unique = list(dict.fromkeys(DOCUMENTS))
    final = narrow.predict([(QUERY, document) for document in unique], length_config=config)
    head = narrow.dropping.heads[config]
    windows = list(narrow._windows([(QUERY, document) for document in unique], "document", None, None).values())
    every = [window for own in windows for window in own]
    states = None
    if head.layers:
        staged = StagedModel(narrow.model, config, after_layer=head.layers - 1)
        states = np.stack([own.batch.first_states[own.row] for own in start(staged, every, batch_size=1)])
    scores = iter(head.scores(bm25(every), states).tolist())
    early = np.array([max(next(scores) for _ in own) for own in windows], np.float32)
    stay = staying(early, places, NARROW)
    assert places <= len(stay) < len(unique)

    rows = 0
    whole, later = LengthAdaptiveModel.__call__, StagedModel.later

    def counting_whole(self: LengthAdaptiveModel, input_ids: Any, **options: Any) -> Any:  # noqa: ANN401
        nonlocal rows
        rows += len(input_ids)
        return whole(self, input_ids, **options)

    def counting_later(self: StagedModel, batch: Any) -> Any:  # noqa: ANN401
        nonlocal rows
        rows += len(batch)
        return later(self, batch)

    monkeypatch.setattr(LengthAdaptiveModel, "__call__", counting_whole)
    monkeypatch.setattr(StagedModel, "later", counting_later)
    found = narrow.rank(QUERY, unique, top_n, length_config=config)
    assert rows == sum(len(windows[i]) for i in stay)
    expected = sorted(stay, key=lambda i: -final[i])[:top_n]
    assert [own["corpus_id"] for own in found] == expected
    assert [own["score"] for own in found] == pytest.approx([final[i] for i in expected], abs=1e-5)


def test_nothing_is_dropped_where_all_scores_are_asked_for(narrow: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StagedModel, "first", lambda *given, **options: pytest.fail("a stage ran"))
    assert len(narrow.rank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    assert len(narrow.rank(QUERY, DOCUMENTS, 60)) == 60  # no margin for so many
    assert len(narrow.rank(QUERY, DOCUMENTS[:10], 3, length_config="half")) == 3  # no more documents than places
    assert len(narrow.rank(QUERY, [DOCUMENTS[0]] * 30, 5)) == 5  # equal ones are one document
    assert len(narrow.rank(QUERY, DOCUMENTS, 3, drop_documents=False)) == 3
    assert len(narrow.rank(QUERY, DOCUMENTS, 3, length_config=CONFIGS["half"])) == 3  # not given by name
    narrow.predict([(QUERY, document) for document in DOCUMENTS[:3]])


def test_equal_documents_are_returned_in_their_order(wide: Reranker) -> None:
    documents = [*DOCUMENTS[:20], *DOCUMENTS[:20]]
    ids = [own["corpus_id"] for own in wide.rank(QUERY, documents, 10)]
    assert ids[0::2] == [i - 20 for i in ids[1::2]]


def test_a_copy_by_pickle_drops_the_same(narrow: Reranker) -> None:
    copy = pickle.loads(pickle.dumps(narrow))
    assert copy.rank(QUERY, DOCUMENTS, 5) == narrow.rank(QUERY, DOCUMENTS, 5)


def test_heads_are_read_as_written(tmp_path: Path) -> None:
    bundle = classifier_bundle(tmp_path, tiny_classifier(1), CONFIGS)
    assert early_heads_of(open_bundle(bundle)) is None
    head = random_head(2, {10: 0.5, 3: 0.25})
    put_heads(bundle, {"half": head})
    found = early_heads_of(open_bundle(bundle))
    assert found is not None
    assert (found.confidence, found.queries, found.data) == (0.95, 299, "some.jsonl")
    (read,) = found.heads.values()
    assert (read.layers, read.match_weight, read.bias, read.risk) == (2, 0.5, 0.25, 0.01)
    assert list(read.margins.items()) == [(3, 0.25), (10, 0.5)]
    np.testing.assert_array_equal(read.weight, head.weight)
    assert [read.places(n) for n in (1, 3, 4, 10, 11)] == [3, 3, 10, 10, None]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"layers": -1}, "after 0 … 2 layers, not after -1"),
    ({"layers": 3}, "after 0 … 2 layers, not after 3"),
    ({"layers": 0}, "after 0 layers has 32 weights, not 0"),
    ({"layers": 1.0}, "layers must be a int"),
    ({"weight": [0.5] * 31}, "after 2 layers has 31 weights, not 32"),
    ({"weight": [0.5] * 31 + [None]}, "must be a number"),
    ({"weight": [0.5] * 31 + [1e9]}, "must be a number"),
    ({"bias": "1"}, "must be a number"),
    ({"margins": {"0": 1.0}}, "no number of places"),
    ({"margins": {"x": 1.0}}, "no number of places"),
    ({"margins": {"10": -0.5}}, "must be a number between 0"),
    ({"margins": None}, "margins must be a dict"),
    ({"match_weight": None}, "match_weight in document_dropping must be a number"),
    ({"risk": 2}, "risk in document_dropping must be a number between 0 and 1"),
    ({"confidence": 2}, "confidence in document_dropping must be a number between 0 and 1"),
    ({"name": "other"}, "names no length configuration"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=str)
def test_malformed_heads_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bundle = put_heads(classifier_bundle(tmp_path, tiny_classifier(1), CONFIGS), {"half": random_head(2, {3: 0.5})})
    manifest = json.loads(json.dumps(read_manifest(bundle)))
    entry = manifest[DOCUMENT_DROPPING]
    for key, value in change.items():
        if key == "name":
            entry["length_configs"] = {value: entry["length_configs"]["half"]}
        elif key in entry:
            entry[key] = value
        else:
            entry["length_configs"]["half"][key] = value
    seal(bundle, as_json(manifest))
    with pytest.raises(BundleFormatError, match=message):
        Reranker.from_pretrained(bundle)
