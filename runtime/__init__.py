"""Load a bundle and answer questions with it at any length configuration."""

from .errors import DynamicTinyBertError
from .explanation import ExplainedToken, ExplainedWindow, ExplainedWord, Explanation, explain
from .length_config import LengthConfig
from .model import LengthAdaptiveModel, QuestionAnsweringOutput
from .question_answering import QuestionAnswerer
from .spans import Answer

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
