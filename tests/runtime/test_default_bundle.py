"""The bundle inside the package."""

import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.bundle import open_bundle
from dynamic_tinybert.runtime.hub import default_bundle

CONTEXT = "Emma, a novel about a clever matchmaker, was written by Jane Austen and published in 1815."


def test_it_is_small_and_whole() -> None:
    bundle = open_bundle(default_bundle())
    assert bundle.quantization["precision"] == "int8"
    assert bundle.default_length_config == "full"
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= 30e6
    assert "license: cc-by-sa-4.0" in (bundle.path / "README.md").read_text()


def test_its_length_configurations_say_what_they_cost() -> None:
    measured = {name: named.measured for name, named in open_bundle(default_bundle()).length_configs.items()}
    assert all(measured.values())
    dropping = {name: figures for name, figures in measured.items() if figures and name != "full"}
    assert len(dropping) >= 4
    for figures in dropping.values():
        assert 1.05 <= figures["macs_fewer"] <= 1.6
        assert figures["lossy"] == (figures["f1_against_full"][0] < -1)


def test_measured_macs_are_those_that_the_model_counts() -> None:
    model = LengthAdaptiveModel.from_pretrained()
    length = 200
    full = model.executed_macs("full", length, (length,) * 6)
    for name, named in model.length_configs.items():
        kept = named.config.most_kept(length)
        assert named.measured is not None
        assert abs(full / model.executed_macs(name, length, kept) - named.measured["macs_fewer"]) < 0.03


@pytest.mark.parametrize(
    ("question", "expected"), [("Who wrote Emma?", "Jane Austen"), ("When was Emma published?", "1815")]
)
def test_it_answers_at_every_length_configuration(question: str, expected: str) -> None:
    answerer = QuestionAnswerer.from_pretrained()
    answers = {name: answerer(question, CONTEXT, length_config=name) for name in answerer.model.length_configs}
    for name in ("full", "attention-1.1x", "attention-1.2x"):
        assert answers[name]["answer"] == expected, name
    for name, answer in answers.items():  # the others may be wrong, but say something
        assert answer["answer"].strip(), name
        assert 0 < answer["score"] <= 1
