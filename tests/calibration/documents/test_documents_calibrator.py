"""A reranker is calibrated on rankings: heads that predict its scores, and margins that keep the promised risk."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dynamic_tinybert import Reranker
from dynamic_tinybert.calibration import calibrate_documents
from dynamic_tinybert.calibration import cli as command
from dynamic_tinybert.calibration.documents.bound import largest_mean
from dynamic_tinybert.calibration.documents.calibrator import FEWEST_TO_FIT
from dynamic_tinybert.calibration.documents.head_fitting import PENALTY, fit_head, kept, macs_share, margin_of
from dynamic_tinybert.calibration.documents.lost_relevance import Relevance
from dynamic_tinybert.calibration.documents.observed import Observed, Observer
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.stages import StagedModel
from dynamic_tinybert.runtime.tasks.sequence_classification.dropping import start
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import early_heads_of
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import ndcg
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings

from support.classifiers import classifier_bundle, texts, tiny_classifier
from support.rankings import write_rankings

RISK = 0.1
CONFIGS = {"half": LengthConfig((0.5, 0.2, 0.2))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rankings(tmp_path_factory.mktemp("data") / "r.jsonl", 70, 14, groups=70, judged=True)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rankings(tmp_path_factory.mktemp("data") / "others.jsonl", 70, 14, seed=20_000, groups=70, judged=True)


@pytest.fixture(scope="module")
def calibrated(data: Path, others: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = classifier_bundle(tmp_path_factory.mktemp("b") / "bundle", tiny_classifier(1), CONFIGS)
    (folder / "README.md").write_text("a card")
    lines: list[str] = []
    heads = calibrate_documents(folder, data, validation=others, risk=RISK, num_threads=1, say=lines.append)
    assert lines[0] == "Fitting on 70 queries, bounding what is lost by judgements on 70 others"
    assert [line.split(":")[0] for line in lines[1:]] == ["full", "half"]
    assert (heads.confidence, heads.queries, heads.data) == (0.95, 70, "others.jsonl")
    return folder


@pytest.mark.parametrize("config", ["full", "half"])
def test_no_more_is_lost_than_the_bound_allows(calibrated: Path, others: Path, config: str) -> None:
    """By ranking the queries that the margins were chosen on, with and without dropping."""
    bundle = open_bundle(calibrated)
    assert (bundle.path / "README.md").read_text() == "a card"
    heads = early_heads_of(bundle)
    assert heads is not None
    head = heads.heads[config]
    assert head.risk == RISK
    assert list(head.margins) == [1, 3, 5, 10]  # no list has more than 20 documents
    reranker = Reranker.from_pretrained(calibrated, num_threads=1)
    rankings = read_rankings(others)
    allowed = largest_mean(len(rankings), RISK)
    assert allowed is not None
    for places in head.margins:
        lost = []
        for ranking in rankings:
            one, other = (
                reranker.rank(ranking.query, ranking.documents, places, length_config=config, drop_documents=drop)
                for drop in (True, False)
            )
            kept_ids = [own["corpus_id"] for own in one]
            lost.append(
                sum(
                    ranking.grades[own["corpus_id"]] / math.log2(1 + rank)
                    for rank, own in enumerate(other, 1)
                    if own["corpus_id"] not in kept_ids
                )
            )
        assert sum(lost) / len(lost) <= allowed + 1e-9
        assert sum(lost) / len(lost) == pytest.approx(head.measured["lost"][str(places)], abs=1e-9)
        assert 0 <= head.measured["dropped"][str(places)] < 1
        assert head.measured["macs_fewer"][str(places)] >= 1
    assert max(head.measured["dropped"].values()) > 0


@pytest.mark.parametrize("config", ["full", "half"])
def test_states_scores_and_costs_are_those_of_the_stages(calibrated: Path, config: str) -> None:
    model = LengthAdaptiveModel.from_pretrained(calibrated, num_threads=1)
    documents = (*texts(9), " ".join(texts(30, seed=9)), texts(9)[3])
    reranker = Reranker(model, function_to_apply="none")
    grades = (*(0.0,) * 9, 3.0, 2.0)
    seen = Observer(model, config)(Ranking("1", "who was in", documents, grades), batch_size=4)
    assert seen.grades is not None
    assert seen.grades.tolist() == [0, 0, 0, 2, 0, 0, 0, 0, 0, 3]  # the higher one of equal documents
    unique = documents[:-1]
    expected = reranker.predict([("who was in", document) for document in unique], length_config=config)
    np.testing.assert_allclose(seen.final, expected, atol=1e-4)
    windows = reranker._windows([("who was in", document) for document in unique], "document", None, None)
    assert len(seen.documents.sequences) > len(unique)
    for layers in (1, 2):
        staged = StagedModel(model, config, after_layer=layers - 1)
        between = start(staged, seen.documents.sequences, batch_size=3)
        states = np.stack([own.batch.first_states[own.row] for own in between])
        np.testing.assert_allclose(seen.states[layers], states, atol=1e-4)
    assert (np.diff(seen.macs, axis=0) > 0).all()
    lengths = [[len(window) for window in own] for own in windows.values()]
    if config == "full":
        every = [sum(model.executed_macs("full", n, (n, n, n)) for n in own) for own in lengths]
        assert seen.macs[-1].tolist() == every
        assert seen.macs[0].tolist() == [
            sum(4 * n * 32 * 32 + 2 * n * n * 32 + 2 * n * 32 * 64 for n in own) for own in lengths
        ]


@pytest.mark.parametrize("config", ["full", "fast"])
def test_states_between_fused_layers(fused: None, config: str) -> None:
    """Of the embedded reranker, whose layers are one op where nothing is dropped."""
    model = LengthAdaptiveModel.from_pretrained(default_reranker(), num_threads=1)
    seen = Observer(model, config)(Ranking("1", "who was in", tuple(texts(5)), (0.0,) * 5), batch_size=8)
    for layers in (1, 4):
        staged = StagedModel(model, config, after_layer=layers - 1)
        between = start(staged, seen.documents.sequences, batch_size=8)
        states = np.stack([own.batch.first_states[own.row] for own in between])
        np.testing.assert_array_equal(seen.states[layers], states)


@pytest.fixture(scope="module")
def observed(calibrated: Path, data: Path) -> list[Observed]:
    observer = Observer(LengthAdaptiveModel.from_pretrained(calibrated, num_threads=1), "full")
    return [observer(ranking, batch_size=8) for ranking in read_rankings(data)[:20]]


@pytest.mark.parametrize("layers", [0, 2])
def test_the_head_is_a_logistic_regression_of_the_models_probabilities(observed: list[Observed], layers: int) -> None:
    """By scikit-learn, to which each window is given twice: as relevant and as not, weighted by its probability."""
    match = np.concatenate([own.match for own in observed])[:, None]
    inputs = np.hstack([match, np.concatenate([own.states[2] for own in observed])]) if layers else match
    shares = 1 / (1 + np.exp(-np.concatenate([own.logits for own in observed]).astype(np.float64)))
    centre, scale = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
    twice = np.vstack([(inputs - centre) / scale] * 2)
    labels, weights = np.repeat([1, 0], len(shares)), np.concatenate([shares, 1 - shares]) / len(shares)
    other = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=2000).fit(twice, labels, sample_weight=weights)
    head = fit_head(observed, layers)
    states = np.concatenate([own.states[2] for own in observed]) if layers else None
    np.testing.assert_allclose(
        head.scores(match[:, 0], states), other.decision_function(twice[: len(shares)]), atol=2e-3
    )


@pytest.mark.parametrize("judged", [True, False])
def test_what_is_lost(observed: list[Observed], judged: bool) -> None:
    for own in observed if judged else [replace(own, grades=None) for own in observed]:
        relevance = Relevance.of(own, 5)
        order = np.argsort(-own.final, kind="stable")
        assert relevance.documents.tolist() == order[:5].tolist()
        everything = np.ones(len(own.final), bool)
        assert relevance.lost(everything) == 0
        if judged:
            grades = np.zeros(len(own.final)) if own.grades is None else own.grades
            assert relevance.shares.sum() == pytest.approx(ndcg(grades[order].tolist(), 5))
        else:
            assert relevance.lost(~everything) == pytest.approx(relevance.shares.sum())
            assert relevance.shares.sum() <= 1 + 1e-9
        without_the_second = everything.copy()
        without_the_second[order[1]] = False
        assert relevance.lost(without_the_second) == relevance.shares[1]


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("layers", [0, 1])
def test_the_margin_is_the_smallest_that_loses_little_enough(
    observed: list[Observed], mean: float, layers: int
) -> None:
    unjudged = [replace(own, grades=None) for own in observed]
    head = fit_head(unjudged, layers)
    found = margin_of(unjudged, head, 3, mean)

    def lost(margin: float) -> float:
        return float(np.mean([Relevance.of(own, 3).lost(kept(own, head, 3, margin)) for own in unjudged]))

    assert lost(found) <= mean + 1e-12
    assert found == 0 or lost(np.nextafter(found, -1)) > mean
    shares = [macs_share(own, layers, kept(own, head, 3, found)) for own in unjudged]
    assert all(0 < share <= 1 for share in shares)
    assert all(macs_share(own, layers, kept(own, head, 3, np.inf)) == pytest.approx(1) for own in unjudged)


def test_too_few_queries_say_how_many_are_needed(tmp_path: Path) -> None:
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1))
    before = (bundle / "dynamic_tinybert.json").read_bytes()
    few = write_rankings(tmp_path / "few.jsonl", 60, 3)
    with pytest.raises(DataError, match=r"2. to fit on and 3. to bound .* for a risk of 0.01 with 95% .* 299 are"):
        calibrate_documents(bundle, few)
    with pytest.raises(DataError, match=rf"{FEWEST_TO_FIT} and"):
        calibrate_documents(bundle, write_rankings(tmp_path / "grouped.jsonl", 60, 3, groups=1), risk=0.5)
    with pytest.raises(DataError, match="single document"):
        calibrate_documents(bundle, write_rankings(tmp_path / "single.jsonl", 60, 1), risk=0.3)
    for risk in (0, 1, -0.5, float("nan")):
        with pytest.raises(InvalidInputError, match="risk is"):
            calibrate_documents(bundle, few, risk=risk)
    with pytest.raises(InvalidInputError, match="a risk for 'fast', but the bundle has only full"):
        calibrate_documents(bundle, few, risk={"fast": 0.1})
    with pytest.raises(InvalidInputError, match="at least one length configuration"):
        calibrate_documents(bundle, few, risk={})
    with pytest.raises(DataError, match="groups are in both files"):
        calibrate_documents(bundle, few, validation=few)
    assert (bundle / "dynamic_tinybert.json").read_bytes() == before


def test_unsuitable_models_and_data_are_refused(tmp_path: Path, data: Path, others: Path) -> None:
    with pytest.raises(InvalidInputError, match="3 outputs"):
        calibrate_documents(classifier_bundle(tmp_path / "3", tiny_classifier(3)), data, risk=RISK)
    regression = classifier_bundle(tmp_path / "r", tiny_classifier(1, problem_type="regression"))
    unjudged = write_rankings(tmp_path / "unjudged.jsonl", 120, 8)
    with pytest.raises(InvalidInputError, match=r"no probabilities of relevance.*'relevant'"):
        calibrate_documents(regression, unjudged, risk=RISK)
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text() + '{"query": "who", "documents": ["the cat", " "]}\n')
    with pytest.raises(DataError, match="ranking 71: document 1 of 2"):
        calibrate_documents(bundle, bad, validation=others, risk=RISK)


def test_a_model_of_one_layer_goes_by_the_words(tmp_path: Path, data: Path) -> None:
    """And only the configurations with a risk drop documents."""
    configs = {"half": LengthConfig((0.5,))}
    bundle = classifier_bundle(tmp_path / "1", tiny_classifier(1, num_hidden_layers=1), configs)
    found = calibrate_documents(bundle, data, risk={"half": 0.3})
    assert [(name, head.layers, head.risk) for name, head in found.heads.items()] == [("half", 0, 0.3)]
    ranking = read_rankings(data)[0]
    reranker = Reranker.from_pretrained(bundle)
    assert len(reranker.rank(ranking.query, ranking.documents, 3, length_config="half")) == 3


def test_the_command_takes_rankings(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1))
    with pytest.raises(InvalidInputError, match="--evaluations is no option for rankings"):
        command.calibrate(bundle, data, evaluations=3)
    with pytest.raises(InvalidInputError, match="--risk is no option for examples that are no rankings"):
        command.calibrate(bundle, tmp_path / "none.tsv", risk=0.01)
    command.calibrate(bundle, data, risk=RISK, num_threads=1)
    shown = capsys.readouterr().out
    assert "documents are dropped, by 4" in shown
    assert len([line for line in shown.splitlines() if line.startswith("full ")]) == 4
