"""Load a bundle and answer questions with it at any length configuration."""

from .common.errors import DynamicTinyBertError
from .length_config import LengthConfig
from .model import LengthAdaptiveModel
from .tasks.question_answering.answerer import QuestionAnswerer
from .tasks.question_answering.explanation import ExplainedToken, ExplainedWindow, ExplainedWord, Explanation, explain
from .tasks.question_answering.spans import Answer
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
