"""Load a bundle and answer questions, classify texts or rank documents with it, with any length configuration.

The names below are imported on first use, so that importing a light submodule does not load OpenVINO.
"""

from typing import TYPE_CHECKING

from dynamic_tinybert.runtime.common.lazy import lazy_attributes

if TYPE_CHECKING:
    from .common.errors import DynamicTinyBertError
    from .length_config import LengthConfig
    from .model import LengthAdaptiveModel
    from .tasks.question_answering.answerer import QuestionAnswerer
    from .tasks.question_answering.answers import Answer
    from .tasks.question_answering.explain import explain
    from .tasks.question_answering.explanation import ExplainedToken, ExplainedWindow, ExplainedWord, Explanation
    from .tasks.question_answering.task import QuestionAnsweringOutput
    from .tasks.sequence_classification.classifier import LabelScore, TextClassifier
    from .tasks.sequence_classification.reranker import RankedDocument, Reranker
    from .tasks.sequence_classification.task import ClassificationOutput

__all__ = [
    "Answer",
    "ClassificationOutput",
    "DynamicTinyBertError",
    "ExplainedToken",
    "ExplainedWindow",
    "ExplainedWord",
    "Explanation",
    "LabelScore",
    "LengthAdaptiveModel",
    "LengthConfig",
    "QuestionAnswerer",
    "QuestionAnsweringOutput",
    "RankedDocument",
    "Reranker",
    "TextClassifier",
    "explain",
]

__getattr__ = lazy_attributes(
    __name__,
    {
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
        **dict.fromkeys(("LabelScore", "TextClassifier"), "tasks.sequence_classification.classifier"),
        **dict.fromkeys(("RankedDocument", "Reranker"), "tasks.sequence_classification.reranker"),
        "ClassificationOutput": "tasks.sequence_classification.task",
        "explain": "tasks.question_answering.explain",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
