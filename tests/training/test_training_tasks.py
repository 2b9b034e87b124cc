"""Trainings know their task by a protocol: what is refused, and files that trainings of earlier releases left."""

import pytest

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.training.front_meter import Point
from dynamic_tinybert.training.objectives.fine_tuning import FineTuning
from dynamic_tinybert.training.tasks import TRAINING_TASKS

from support.tiny import tiny_bert


def test_a_task_that_cannot_be_trained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TRAINING_TASKS, "question_answering")
    with pytest.raises(InvalidInputError, match="models for question_answering cannot be trained"):
        FineTuning(tiny_bert())


def test_an_objective_takes_the_losses_of_its_models_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINING_TASKS, "question_answering", f"{__name__}:LOSSES")
    assert FineTuning(tiny_bert()).task is LOSSES


def test_points_of_earlier_journals_are_read() -> None:
    values = {"name": "full", "question_f1": [50.0, 100.0], "macs": 3.0, "keep_ratios": [1.0], "thresholds": [None]}
    point = Point.from_dict(values)
    assert point.score == point.f1 == 75
    assert Point.from_dict(point.to_dict()) == point


LOSSES = object()
