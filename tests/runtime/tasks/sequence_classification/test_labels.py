"""What config.json says of a classifier's outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import BundleFormatError, InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels, sigmoid, softmax


def labels_of(folder: Path, **config: object) -> Labels:
    (folder / "config.json").write_text(json.dumps(config))
    return Labels.in_folder(folder)


def test_names_and_kinds(tmp_path: Path) -> None:
    assert labels_of(tmp_path).names == ("LABEL_0", "LABEL_1")  # transformers' default, which it does not write
    assert labels_of(tmp_path, num_labels=3).names == ("LABEL_0", "LABEL_1", "LABEL_2")
    stars = labels_of(tmp_path, id2label={"1": "good", "0": "bad"}, num_labels=5)
    assert (stars.names, stars.kind, stars.function) == (("bad", "good"), "classes", "softmax")
    one = labels_of(tmp_path, num_labels=1)
    assert (one.kind, one.function, one.cross_encoder_function) == ("score", "sigmoid", "sigmoid")
    regression = labels_of(tmp_path, num_labels=1, problem_type="regression")
    assert (regression.kind, regression.function, regression.cross_encoder_function) == ("score", "none", "sigmoid")
    several = labels_of(tmp_path, num_labels=4, problem_type="multi_label_classification")
    assert (several.kind, several.function, several.cross_encoder_function) == ("labels", "sigmoid", "none")


@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
        ({"sentence_transformers": {"version": "4.1.0"}}, "sigmoid"),
        ({"sbert_ce_default_activation_function": None}, "sigmoid"),
    ],
)
def test_activations_of_cross_encoders(tmp_path: Path, config: dict[str, Any], function: str) -> None:
    assert labels_of(tmp_path, num_labels=1, **config).cross_encoder_function == function


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "a name to each of 0 … 1"),
        ({"id2label": {"0": ["a"]}}, "a name to each of 0 … 0"),
        ({"id2label": ["a"]}, "must be an object of names"),
        ({"id2label": {}}, "must be an object of names"),
        ({"num_labels": 0}, "num_labels is 0"),
        ({"num_labels": True}, "num_labels is True"),
        ({"problem_type": "guessing"}, "problem_type is 'guessing'"),
    ],
)
def test_what_transformers_does_not_write_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        labels_of(tmp_path, **config)


def test_an_activation_that_is_not_known_matters_only_where_it_is_needed(tmp_path: Path) -> None:
    for key in ({"sentence_transformers": {"activation_fn": "my.Cube"}}, {"sbert_ce_default_activation_function": 3}):
        labels = labels_of(tmp_path, num_labels=1, **key)
        assert (labels.kind, labels.function, labels.function_named("none")) == ("score", "sigmoid", "none")
        with pytest.raises(
            BundleFormatError, match=r"activation '(my.Cube|3)' is not known.*function_to_apply='sigmoid'"
        ):
            _ = labels.cross_encoder_function


def test_functions_are_found_by_their_names(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    assert [labels.function_named(name) for name in (None, "default", "SIGMOID", "none")] == [
        "softmax",
        "softmax",
        "sigmoid",
        "none",
    ]
    for wrong in ("tanh", "", 3):
        with pytest.raises(InvalidInputError, match="function_to_apply must be one of 'default', 'sigmoid'"):
            labels.function_named(wrong)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=5))
def test_scores_are_between_0_and_1(numbers: list[float]) -> None:
    logits = np.array(numbers, np.float32)
    for scores in (sigmoid(logits), softmax(logits)):
        assert scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()
    assert softmax(logits).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(sigmoid(logits) + sigmoid(-logits), 1, atol=1e-6)
