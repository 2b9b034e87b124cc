"""The figures of a configuration, measured on a tiny model."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dynamic_tinybert.calibration.figures import measured_figures
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.example import Example

from support.tiny import tiny_bundle


def test_gains_have_an_interval_over_questions_and_one_over_articles(tmp_path: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle"), num_threads=1)
    contexts = ["a b c d e f", "the b was in 2 2 .", "c d a a b f e"]
    examples = [Example(f"{k}", "where was b ?", contexts[k % 3], ("b",), f"article {k % 3}") for k in range(12)]
    num_layers = model.bundle.shape.num_layers
    full, fewer = (
        evaluate(model, examples, length_config=config, batch_size=1)
        for config in (LengthConfig.full(num_layers), LengthConfig((0.5,) * num_layers))
    )
    articles = [example.title for example in examples]
    figures = measured_figures(fewer, full, ["f1", "exact_match"], articles)
    gain = float(np.mean(np.subtract(fewer.scores, full.scores)))
    for key in ("f1_against_full", "f1_against_full_over_groups"):
        mean, low, high = cast(list[float], figures[key])
        assert mean == pytest.approx(gain, abs=0.01)
        assert low <= mean <= high
    assert figures["num_groups"] == 3
    # questions of an article are the same one here, so that resampling articles alone shows how they differ
    means = [np.subtract(fewer.scores, full.scores)[k::3].mean() for k in range(3)]
    low, high = figures["f1_against_full_over_groups"][1:]  # type: ignore[index]
    assert (low, high) == pytest.approx((min(means), max(means)), abs=0.01)  # all three draws may be the same article
    one = measured_figures(fewer, full, ["f1", "exact_match"], ["one"] * 12)
    assert one.keys() == figures.keys() - {"f1_against_full_over_groups", "num_groups"}
