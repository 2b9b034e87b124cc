"""A reranker is calibrated on rankings: heads that predict its scores, and margins that keep the promised risk."""

import math
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert import Reranker
from dynamic_tinybert.calibration import calibrate_documents
from dynamic_tinybert.calibration import cli as command
from dynamic_tinybert.calibration.documents.bound import allowed_changes
from dynamic_tinybert.calibration.documents.calibrator import FEWEST_TO_FIT
from dynamic_tinybert.calibration.documents.head_fitting import HeadChoice, fit_head, kept
from dynamic_tinybert.calibration.documents.observed import Observer
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.stages import StagedModel
from dynamic_tinybert.runtime.tasks.sequence_classification.dropping import start
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import early_heads_of
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings

from support.classifiers import classifier_bundle, texts, tiny_classifier
from support.rankings import write_rankings

RISK = 0.2
CONFIGS = {"half": LengthConfig((0.5, 0.2, 0.2))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rankings(tmp_path_factory.mktemp("data") / "r.jsonl", 70, 14)


@pytest.fixture(scope="module")
def calibrated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = classifier_bundle(tmp_path_factory.mktemp("b") / "bundle", tiny_classifier(1), CONFIGS)
    (folder / "README.md").write_text("a card")
    lines: list[str] = []
    heads = calibrate_documents(folder, data, validation=data, risk=RISK, num_threads=1, say=lines.append)
    assert lines[0] == "Fitting on 70 queries, bounding the risk on 70 others"
    assert [line.split(":")[0] for line in lines[1:]] == ["full", "half"]
    assert (heads.risk, heads.queries, heads.data) == (RISK, 70, "r.jsonl")
    return folder


@pytest.mark.parametrize("config", ["full", "half"])
def test_no_more_queries_change_than_the_bound_allows(calibrated: Path, data: Path, config: str) -> None:
    """Counted by ranking the queries that the margins were chosen on, with and without dropping."""
    bundle = open_bundle(calibrated)
    assert (bundle.path / "README.md").read_text() == "a card"
    heads = early_heads_of(bundle)
    assert heads is not None
    head = heads.heads[config]
    assert list(head.margins) == [1, 3, 5, 10]  # no list has more than 20 documents
    reranker = Reranker.from_pretrained(calibrated, num_threads=1)
    rankings = read_rankings(data, judged=False)
    allowed = allowed_changes(len(rankings), RISK)
    for places in head.margins:
        changed = 0
        for ranking in rankings:
            one, other = (
                reranker.rank(ranking.query, ranking.documents, places, length_config=config, drop_documents=drop)
                for drop in (True, False)
            )
            changed += [own["corpus_id"] for own in one] != [own["corpus_id"] for own in other]
        assert allowed is not None
        assert changed <= allowed
        if head.margins[places] > 0:
            assert changed == allowed  # no margin is wider than it has to be
        assert 0 <= head.measured["dropped"][str(places)] < 1
        assert head.measured["macs_fewer"][str(places)] >= 1


@pytest.mark.parametrize("config", ["full", "half"])
def test_states_scores_and_costs_are_those_of_the_stages(calibrated: Path, config: str) -> None:
    model = LengthAdaptiveModel.from_pretrained(calibrated, num_threads=1)
    documents = (*texts(9), " ".join(texts(30, seed=9)), texts(9)[3])
    reranker = Reranker(model, function_to_apply="none")
    seen = Observer(model, config)(Ranking("1", "who was in", documents, (0.0,) * 11), batch_size=4)
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


def test_the_head_is_a_ridge_regression(calibrated: Path, data: Path) -> None:
    """As the least squares solution with a row for each penalised weight."""
    model = LengthAdaptiveModel.from_pretrained(calibrated, num_threads=1)
    observer = Observer(model, "full")
    seen = [observer(ranking, batch_size=8) for ranking in read_rankings(data, judged=False)[:12]]
    states, logits = np.concatenate([own.states[2] for own in seen]), np.concatenate([own.logits for own in seen])
    head = fit_head(seen, HeadChoice(2, 0.1, math.inf), 5)
    centred = states.astype(np.float64) - states.mean(0, dtype=np.float64)
    penalty = math.sqrt(0.1 * np.square(centred).sum() / 32)  # a tenth of the mean variance, for each row
    design, target = np.vstack([centred, penalty * np.eye(32)]), np.concatenate([logits - logits.mean(), np.zeros(32)])
    weight, *_ = np.linalg.lstsq(design, target, rcond=None)
    np.testing.assert_allclose(head.scores(states), centred @ weight + logits.mean(), atol=1e-4)
    strong = fit_head(seen, HeadChoice(2, 1e6, math.inf), 5)
    np.testing.assert_allclose(strong.scores(states), logits.mean(), atol=1e-3)
    assert kept(seen[0], head, 5, np.inf).all()


def test_a_focus_is_exact_where_it_looks(calibrated: Path, data: Path) -> None:
    """With a narrow focus, errors near the last place that counts are smaller than with equal weights."""
    model = LengthAdaptiveModel.from_pretrained(calibrated, num_threads=1)
    observer = Observer(model, "full")
    seen = [observer(ranking, batch_size=8) for ranking in read_rankings(data, judged=False)[:30]]
    errors = []
    for focus in (0.2, math.inf):
        head = fit_head(seen, HeadChoice(1, 1e-3, focus), 5)
        own = [(one.early(head) - one.final)[np.argsort(-one.final)[3:7]] for one in seen]
        errors.append(float(np.square(np.concatenate(own)).mean()))
    assert errors[0] < errors[1]


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
    assert (bundle / "dynamic_tinybert.json").read_bytes() == before


def test_unsuitable_models_and_data_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InvalidInputError, match="3 outputs"):
        calibrate_documents(classifier_bundle(tmp_path / "3", tiny_classifier(3)), data, risk=RISK)
    with pytest.raises(InvalidInputError, match="has one"):
        calibrate_documents(classifier_bundle(tmp_path / "1", tiny_classifier(1, num_hidden_layers=1)), data, risk=RISK)
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text() + '{"query": "who", "documents": ["the cat", " "]}\n')
    with pytest.raises(DataError, match="ranking 71: document 1 of 2"):
        calibrate_documents(bundle, bad, validation=bad, risk=RISK)


def test_the_command_takes_rankings(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1))
    with pytest.raises(InvalidInputError, match="--evaluations is no option for rankings"):
        command.calibrate(bundle, data, evaluations=3)
    with pytest.raises(InvalidInputError, match="--risk is no option for examples that are no rankings"):
        command.calibrate(bundle, tmp_path / "none.tsv", risk=0.01)
    command.calibrate(bundle, data, risk=RISK, num_threads=1)
    shown = capsys.readouterr().out
    assert "documents are dropped at a risk of 20.00%, by 4" in shown
    assert len([line for line in shown.splitlines() if line.startswith("full ")]) == 4
