"""Reports show the measure of the task: what is measured of a classifier, in its own words."""

from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.calibration.report import evaluation_report, write_evaluation_report
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.tasks.measure import measure_of

from support.classifiers import classifier_bundle, texts, tiny_classifier


@pytest.mark.parametrize(("labels", "metric"), [(1, "closeness"), (3, "accuracy")])
def test_a_classifier_is_reported_by_its_own_measure(labels: int, metric: str, tmp_path: Path) -> None:
    configs = {"half": LengthConfig((1, 0.7, 0.4))}
    model = LengthAdaptiveModel.from_pretrained(
        classifier_bundle(tmp_path / "b", tiny_classifier(labels), configs), num_threads=1
    )
    (tmp_path / "t.tsv").write_text("".join(f"{text}\n" for text in texts(9, words=(20, 60))))
    measure = measure_of(model.bundle)
    examples = measure.read(tmp_path / "t.tsv", strict=True).examples
    scoring = measure.scoring(model, examples)
    runs = {name: scoring.evaluate(model, name, batch_size=1) for name in ("full", "half")}
    report = evaluation_report(model, measure, examples, runs, data="t.tsv, 9 texts", num_threads=1)
    assert (report.metrics, report.score, report.example) == ((metric,), metric, "text")
    for result, run in zip(report.named, runs.values(), strict=True):
        assert result.means == (run.means[metric],)
        assert result.point.score == pytest.approx(np.mean(run.scores))
        assert result.latency.p50 == pytest.approx(np.median(run.example_ms))
        assert result.kept[0].mean == pytest.approx(np.mean(run.window_lengths))
    assert report.named[1].difference is not None
    assert report.decomposition is not None
    assert report.decomposition.window == max(runs["full"].window_lengths)  # nobody pads texts to a length of its own

    write_evaluation_report(model, measure, examples, runs, tmp_path / "r.html", data="t.tsv", num_threads=1)
    page = (tmp_path / "r.html").read_text()
    for shown in (f"{metric} against cost", "time of a text, ms", f"{metric} against full", "Each text, or pair of"):
        assert shown in page
    assert "F1" not in page
    assert "question" not in page
