"""Load a bundle and answer questions with it, with any length configuration.

The names below are imported on first use, so that importing a light submodule does not load OpenVINO.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .common.errors import DynamicTinyBertError
    from .length_config import LengthConfig
    from .model import LengthAdaptiveModel
    from .tasks.question_answering.answerer import QuestionAnswerer
    from .tasks.question_answering.answers import Answer
    from .tasks.question_answering.explain import explain
    from .tasks.question_answering.explanation import ExplainedToken, ExplainedWindow, ExplainedWord, Explanation
    from .tasks.question_answering.task import QuestionAnsweringOutput

__all__ = [
    "Answer",
    "DynamicTinyBertError",
    "ExplainedToken",
    "ExplainedWindow",
    "ExplainedWord",
    "Explanation",
    "LengthAdaptiveModel",
    "LengthConfig",
    "QuestionAnswerer",
    "QuestionAnsweringOutput",
    "explain",
]

_HOMES = {
    "Answer": "tasks.question_answering.answers",
    "DynamicTinyBertError": "common.errors",
    "ExplainedToken": "tasks.question_answering.explanation",
    "ExplainedWindow": "tasks.question_answering.explanation",
    "ExplainedWord": "tasks.question_answering.explanation",
    "Explanation": "tasks.question_answering.explanation",
    "LengthAdaptiveModel": "model",
    "LengthConfig": "length_config",
    "QuestionAnswerer": "tasks.question_answering.answerer",
    "QuestionAnsweringOutput": "tasks.question_answering.task",
    "explain": "tasks.question_answering.explain",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
