"""A classifier is calibrated: by the scores of its own task, by rules of its own, and with a report."""

import json
from pathlib import Path

import pytest

from dynamic_tinybert.calibration import calibrate
from dynamic_tinybert.calibration.report import write_calibration_report
from dynamic_tinybert.calibration.significance.learnt import fit_or_load_scorers
from dynamic_tinybert.calibration.significance.teacher import ScorerTeacher
from dynamic_tinybert.export import export_model
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.commands.info import _described
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.encoder.scorer import ruled_layers
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.tasks.measure import measure_of

from support.classifiers import classifier_bundle, save_classifier, texts, tiny_classifier


@pytest.mark.slow
def test_calibration_finds_length_configurations(tmp_path: Path) -> None:
    """Layers wide enough that dropping tokens pays."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 2048, "initializer_range": 0.1}
    bundle = classifier_bundle(tmp_path / "b", tiny_classifier(1, **sizes))
    every = texts(700, words=(60, 110))
    for name, first, last in (("fit", 0, 60), ("choose", 60, 460), ("report", 460, 700)):
        rows = [{"text": " ".join(text.split()[:4]), "text_pair": text} for text in every[first:last]]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = calibrate(
        bundle,
        tmp_path / "fit.jsonl",
        validation=tmp_path / "choose.jsonl",
        test=tmp_path / "report.jsonl",
        budget_minutes=20,
        evaluations=6,
        num_threads=1,
        say=print,
    )
    write_calibration_report(result, tmp_path / "report.html", num_threads=1)
    page = (tmp_path / "report.html").read_text()
    for shown in ("closeness against cost", "mean time of a text, ms", "240 texts", "400 texts to choose on"):
        assert shown in page
    assert "F1" not in page
    metric = "closeness"
    assert list(result.metrics) == [metric]
    calibrated = open_bundle(bundle)
    assert (calibrated.task, calibrated.significance) == ("sequence_classification", "learnt")
    assert len(calibrated.length_configs) > 1
    for name, named in calibrated.length_configs.items():
        figures = dict(named.measured or {})
        assert figures["scored_by"] == "agreement"
        assert figures["data"] == "report.jsonl, 240 texts"
        assert _described(named).startswith(f"{metric} {figures[metric]}")
        if name == "full":
            assert figures["macs_fewer"] == 1
            assert figures[metric] > 99.99
        else:
            assert figures["macs_fewer"] > 1.05
            assert figures[f"{metric}_against_full"][0] > -10


@pytest.mark.parametrize("labels", [1, 3])
def test_scorers_of_int8_bundles_are_fitted(labels: int, tmp_path: Path) -> None:
    """Also where the target comes from nodes that a fused graph does not have."""
    bundle = open_bundle(int8_bundle(labels, tmp_path))
    examples = measure_of(bundle).read(tmp_path / "t.tsv", strict=True).examples
    learnt = fit_or_load_scorers(bundle, examples, tmp_path / "fit", 5, 0, steps=20)
    assert learnt.scorers is not None
    assert max(learnt.sample.layers) < 2  # the last layer selects nothing
    assert ruled_layers(load_scorer_tensors(learnt.scorers)) == []  # [CLS] reads the first text in the last layer


@pytest.mark.parametrize("labels", [1, 3])
def test_outputs_that_are_alike_are_no_sign_of_another_model(
    labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs of one text have no spread to compare rounding with; those of another model still differ."""
    bundle = open_bundle(int8_bundle(labels, tmp_path))
    (text,) = measure_of(bundle).read(tmp_path / "t.tsv", strict=True).examples[:1]
    windows = measure_of(bundle).windows_of(text)
    for alike in (windows, [*windows] * 8):
        ScorerTeacher(bundle, [0]).check(alike)
    other = tiny_classifier(labels, seed=1)
    monkeypatch.setattr("dynamic_tinybert.calibration.significance.teacher.model_of_bundle", lambda *_, **__: other)
    with pytest.raises(BundleFormatError, match="the graph's logits differ by"):
        ScorerTeacher(bundle, [0]).check(windows)


def int8_bundle(labels: int, folder: Path) -> Path:
    """An INT8 bundle, and the file t.tsv of the texts that it was exported with."""
    data = folder / "t.tsv"
    data.write_text("".join(f"{text}\n" for text in texts(60, words=(20, 60))))
    checkpoint = save_classifier(folder / "c", tiny_classifier(labels))
    export_model(checkpoint, folder / "b", calibration_data=data, num_samples=8, tune=False)
    return folder / "b"
