"""The bundle inside the package."""

import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle

CONTEXT = "Emma, a novel about a clever matchmaker, was written by Jane Austen and published in 1815."


def test_it_is_small_and_whole() -> None:
    bundle = open_bundle(default_bundle())
    assert bundle.quantization["precision"] == "int8"
    assert bundle.default_length_config == "full"
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= 30e6
    assert "license: cc-by-sa-4.0" in (bundle.path / "README.md").read_text()


def test_its_length_configurations_say_what_they_cost() -> None:
    bundle = open_bundle(default_bundle())
    assert bundle.significance == "learnt"
    assert list(bundle.length_configs) == ["full", "accurate", "balanced", "fast"]
    measured = [dict(named.measured or {}) for named in bundle.length_configs.values()]
    assert [figures["lossy"] for figures in measured] == [figures["f1_against_full"][0] < -1 for figures in measured]
    fewer = [figures["macs_fewer"] for figures in measured]
    assert fewer == sorted(fewer)
    assert measured[-1]["latency_p50_ms"] < measured[0]["latency_p50_ms"]


def test_measured_macs_are_those_that_the_model_counts() -> None:
    model = LengthAdaptiveModel.from_pretrained()
    measured = {name: dict(named.measured or {}) for name, named in model.length_configs.items()}
    length = round(measured["full"]["mean_kept_tokens"][0])
    for name, figures in measured.items():
        kept = [round(tokens) for tokens in figures["mean_kept_tokens"]]
        assert model.executed_macs(name, length, kept) == pytest.approx(figures["macs"], rel=0.06)  # mean of squares


@pytest.mark.parametrize(
    ("question", "expected"), [("Who wrote Emma?", "Jane Austen"), ("When was Emma published?", "1815")]
)
def test_it_answers_at_every_length_configuration(question: str, expected: str) -> None:
    answerer = QuestionAnswerer.from_pretrained()
    answers = {name: answerer(question, CONTEXT, length_config=name) for name in answerer.model.length_configs}
    for name in ("full", "accurate", "balanced"):
        assert answers[name]["answer"] == expected, name
    for name, answer in answers.items():  # the others may be wrong, but say something
        assert answer["answer"].strip(), name
        assert 0 < answer["score"] <= 1
