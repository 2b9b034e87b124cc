"""The measure of classification: accuracy, agreement with `full`, closeness of scores."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.sequence_classification.measure import TextMeasure
from dynamic_tinybert.runtime.tasks.sequence_classification.scoring import closeness

from support.classifiers import classifier_bundle, texts, tiny_classifier

HALF = LengthConfig((0.5, 0.2, 0.2))


def loaded(folder: Path, labels: int, **config: object) -> tuple[LengthAdaptiveModel, TextMeasure]:
    bundle = open_bundle(classifier_bundle(folder, tiny_classifier(labels, **config), {"half": HALF}))
    measure = measure_of(bundle)
    assert isinstance(measure, TextMeasure)
    return LengthAdaptiveModel(bundle), measure


def logits(model: LengthAdaptiveModel, measure: TextMeasure, text: str, name: str) -> np.ndarray:
    tokens = measure._tokenize(text)
    inputs = {"input_ids": [tokens.input_ids], "token_type_ids": [tokens.token_type_ids]}
    return np.array(model(**inputs, length_config=name).logits[0], np.float64)


def test_accuracy_of_classes(tmp_path: Path) -> None:
    model, measure = loaded(tmp_path / "b", 3)
    some = texts(24)
    file = tmp_path / "t.tsv"
    by_full = [logits(model, measure, text, "full") for text in some]
    file.write_text("".join(f"{t}\t{(int(own.argmax()) + (i % 4 == 0)) % 3}\n" for i, (t, own) in enumerate(zip(some, by_full))))  # fmt: skip  # noqa: B905, E501
    examples = measure.read(file, strict=True).examples
    scoring = measure.scoring(model, examples)
    assert (dict(measure.metrics), scoring.scored_by, scoring.by_full) == ({"accuracy": "accuracy"}, "labels", None)
    full = scoring.evaluate(model, LengthConfig.full(3), batch_size=1)
    assert full.scores == tuple(0.0 if i % 4 == 0 else 100.0 for i in range(24))
    assert full.means == {"accuracy": 75.0}
    assert len(full.text_ms) == 24
    half = scoring.evaluate(model, HALF, batch_size=8)
    right = [int(logits(model, measure, e.text, "half").argmax()) == e.label for e in examples]
    assert half.scores == tuple(100.0 * own for own in right)
    assert half.latency_ms(50) is None
    assert half.mean_macs < full.mean_macs
    assert (np.array(half.window_kept)[:, 0] <= np.ceil(np.array(half.window_lengths) / 2)).all()
    parts = [scoring.evaluate(model, HALF, batch_size=8, span=slice(*span)) for span in ((0, 10), (10, 24))]
    joined = parts[0].join(parts[1:])
    assert (joined.scores, joined.window_kept) == (half.scores, half.window_kept)
    np.testing.assert_allclose(joined.logits, half.logits, atol=1e-5)
    assert joined.mean_macs == pytest.approx(half.mean_macs)


def test_agreement_without_labels(tmp_path: Path) -> None:
    """The expected accuracy if the right class were drawn from the distribution of `full`."""
    model, measure = loaded(tmp_path / "b", 3)
    file = tmp_path / "t.tsv"
    some = texts(12)
    file.write_text("\n".join([*some[:11], f"{some[11]}\t2"]))
    read = measure.read(file, strict=False)
    scoring = measure.scoring(model, read.examples)
    assert scoring.scored_by == "labels and agreement"
    found = scoring.evaluate(model, HALF, batch_size=4).scores
    for text, score in zip(some[:11], found, strict=False):
        powers = np.exp(logits(model, measure, text, "full"))
        best = logits(model, measure, text, "half").argmax()
        assert score == pytest.approx(100 * powers[best] / powers.sum(), abs=1e-3)
    assert found[11] == 100.0 * (logits(model, measure, some[11], "half").argmax() == 2)


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_closeness_of_one_output(tmp_path: Path, problem_type: str | None) -> None:
    model, measure = loaded(tmp_path / "b", 1, problem_type=problem_type)
    file = tmp_path / "t.tsv"
    some = texts(12)
    file.write_text("".join(f"{text}\t{i / 2}\n" for i, text in enumerate(some)))
    examples = measure.read(file, strict=True).examples
    scoring = measure.scoring(model, examples)
    assert (dict(measure.metrics), scoring.scored_by) == ({"closeness": "closeness"}, "agreement")
    full = scoring.evaluate(model, LengthConfig.full(3), batch_size=1)
    assert full.scores == pytest.approx([100] * 12, abs=1e-3)
    half = scoring.evaluate(model, HALF, batch_size=4, span=slice(2, 9))
    a, b = (np.array([logits(model, measure, text, name)[0] for text in some]) for name in ("half", "full"))
    unit = (lambda z: z / (4 * b.std())) if problem_type else (lambda z: 1 / (1 + np.exp(-z)))
    expected = 100 * (1 - np.minimum(1, np.abs(unit(a) - unit(b))))
    assert half.scores == pytest.approx(expected[2:9], abs=1e-3)
    assert full.correlation == pytest.approx(np.corrcoef(b, np.arange(12))[0, 1], abs=1e-4)
    assert half.to_dict()["correlation"] == pytest.approx(np.corrcoef(a[2:9], np.arange(7))[0, 1], abs=1e-4)


def test_labels_that_go_together(tmp_path: Path) -> None:
    model, measure = loaded(tmp_path / "b", 4, problem_type="multi_label_classification")
    file = tmp_path / "t.csv"
    first, second = texts(2)
    file.write_text(f'text,label\n{first},"LABEL_0,LABEL_2"\n{second},\n')
    examples = measure.read(file, strict=False).examples
    scores = measure.scoring(model, examples).evaluate(model, HALF, batch_size=2).scores
    found = logits(model, measure, first, "half") > 0
    assert scores[0] == 100 * np.mean(found == [True, False, True, False])
    probabilities = 1 / (1 + np.exp(-logits(model, measure, second, "full")))
    decided = np.where(logits(model, measure, second, "half") > 0, probabilities, 1 - probabilities)
    assert scores[1] == pytest.approx(100 * decided.mean(), abs=1e-3)


def test_closeness_is_between_0_and_100() -> None:
    values = torch.linspace(-1e4, 1e4, 9).numpy()
    assert closeness(values, values).tolist() == [100] * 9
    assert closeness(values, -values)[[0, 4, 8]].tolist() == [0, 100, 0]
