"""With early heads, `rank` runs fewer documents, and returns what it returns without, if the margin is wide."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert import Reranker
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.manifest import as_json, read_manifest, seal
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.stages import StagedModel
from dynamic_tinybert.runtime.tasks.sequence_classification.competition import lags
from dynamic_tinybert.runtime.tasks.sequence_classification.dropping import start
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import (
    DOCUMENT_DROPPING,
    EarlyHead,
    early_heads_of,
)

from support.classifiers import classifier_bundle, texts, tiny_classifier
from support.rankings import put_heads, random_head

QUERY = "who was in the b"
WIDE, NARROW = 1e6, 0.05
LONG = " ".join(texts(30, seed=9))
DOCUMENTS = [*texts(60), LONG, *texts(5, seed=3), texts(60)[7], LONG]
CONFIGS = {"half": LengthConfig((0.5, 0.2, 0.2))}


def reranker(folder: Path, heads: Mapping[str, EarlyHead]) -> Reranker:
    bundle = classifier_bundle(folder, tiny_classifier(1), CONFIGS)
    return Reranker.from_pretrained(put_heads(bundle, heads), precision="f32")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """Nothing is dropped, though in two stages."""
    margins = {3: WIDE, 10: WIDE, 50: WIDE}
    return reranker(tmp_path_factory.mktemp("wide"), {"full": random_head(1, margins), "half": random_head(2, margins)})


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    heads = {"full": random_head(2, {3: NARROW, 10: NARROW}), "half": random_head(1, {10: NARROW})}
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
    ("config", "layers", "places", "top_n"), [("full", 2, 3, 2), ("full", 2, 10, 8), ("half", 1, 10, 1)]
)
def test_documents_that_lag_behind_do_not_run_the_later_layers(
    narrow: Reranker, config: str, layers: int, places: int, top_n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents that run are those of `lags`, computed from the states and the scores of all of them."""
    unique = list(dict.fromkeys(DOCUMENTS))
    final = narrow.predict([(QUERY, document) for document in unique], length_config=config)
    logits = np.log(final / (1 - final))
    head = narrow.dropping.heads[config]
    staged = StagedModel(narrow.model, config, after_layer=layers - 1)
    windows = narrow._windows([(QUERY, document) for document in unique], "document", None, None)
    early = []
    for own in windows.values():
        states = [between.batch.first_states[between.row] for between in start(staged, own, batch_size=1)]
        early.append(max(head.scores(np.stack(states))))
    stay = np.flatnonzero(lags(np.array(early), logits, places) <= NARROW)
    assert places <= len(stay) < len(unique)

    rows = 0
    later = StagedModel.later

    def counting(self: StagedModel, batch: Any) -> Any:  # noqa: ANN401
        nonlocal rows
        rows += len(batch)
        return later(self, batch)

    monkeypatch.setattr(StagedModel, "later", counting)
    found = narrow.rank(QUERY, unique, top_n, length_config=config)
    assert rows == sum(len(list(windows.values())[i]) for i in stay)
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
    assert (found.risk, found.confidence, found.queries, found.data) == (0.01, 0.95, 299, "some.jsonl")
    (read,) = found.heads.values()
    assert (read.layers, read.bias, list(read.margins.items())) == (2, 0.25, [(3, 0.25), (10, 0.5)])
    np.testing.assert_array_equal(read.weight, head.weight)
    assert [read.places(n) for n in (1, 3, 4, 10, 11)] == [3, 3, 10, 10, None]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"layers": 0}, "after layer 1 … 2, not after 0"),
    ({"layers": 3}, "after layer 1 … 2, not after 3"),
    ({"layers": 1.0}, "layers must be a int"),
    ({"weight": [0.5] * 31}, "31 weights, but states have 32"),
    ({"weight": [0.5] * 31 + [None]}, "must be a number"),
    ({"weight": [0.5] * 31 + [1e9]}, "must be a number"),
    ({"bias": "1"}, "must be a number"),
    ({"margins": {"0": 1.0}}, "no number of places"),
    ({"margins": {"x": 1.0}}, "no number of places"),
    ({"margins": {"10": -0.5}}, "must be a number between 0"),
    ({"margins": None}, "margins must be a dict"),
    ({"step": 9}, "are for 9 documents at a time"),
    ({"risk": 2}, "risk in document_dropping must be a number between 0 and 1"),
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
