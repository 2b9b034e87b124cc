"""The two models that clients of the protocol see: one that reads texts, and one that reads token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.http.by_task import Kind
from dynamic_tinybert.serving.jobs import AnswerJob, Classified, ClassifyJob, Logits, LogitsJob, ModelFacts

from .tensors import TensorSpec

Arrays = Mapping[str, npt.NDArray[Any]]
"""Tensors by name."""

PLATFORM = "dynamic-tinybert_openvino"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the protocol: its tensors, and how they become a job and come from its result.

    Attributes:
        suffix: What its name has after that of the server's model.
        kind: Begin of the names of its operations in the form of OpenAPI.
        summary: What it does.
        inputs: Its inputs.
        outputs: Its outputs.
        parameters: Names of those parameters of `POST /predict` that it takes.
        job: Makes a job of inputs and parameters.
        result: Makes outputs of the job's result.
        absent: Outputs that a result of these parameters lacks, each with the parameter that it needs.
    """

    suffix: str
    kind: str
    summary: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Collection[str]
    job: Callable[[Arrays, Mapping[str, Any]], AnswerJob | ClassifyJob | LogitsJob]
    result: Callable[[Any], Arrays]
    absent: Callable[[Mapping[str, Any]], Mapping[str, str]]

    def metadata(self, facts: ModelFacts) -> dict[str, Any]:
        """The protocol's description of it."""
        return {
            "name": facts.name + self.suffix,
            "versions": [facts.version],
            "platform": PLATFORM,
            "inputs": [tensor.metadata() for tensor in self.inputs],
            "outputs": [tensor.metadata() for tensor in self.outputs],
        }


def _answer_job(inputs: Arrays, options: Mapping[str, Any]) -> AnswerJob:
    questions, contexts = inputs["question"].tolist(), inputs["context"].tolist()
    if len(contexts) == 1:
        contexts *= len(questions)
    if len(contexts) != len(questions):
        raise InvalidInputError(
            f"input context has {len(contexts)} texts for {len(questions)} questions; give one for each, or one for all"
        )
    return AnswerJob(tuple(questions), tuple(contexts), dict(options))


def _answer_tensors(answered: Answered) -> Arrays:
    """The answers, [B, k], where k is the largest number of answers to any question; shorter rows are filled up."""
    width = max(map(len, answered.answers))
    rows = [[*own, *[_NO_ANSWER] * (width - len(own))] for own in answered.answers]
    tensors = {
        name: _array(([answer[name] for answer in row] for row in rows), dtype)
        for name, dtype in (("answer", "O"), ("score", "f8"), ("start", "i8"), ("end", "i8"))
    }
    firsts = [own[0] for own in answered.answers]
    if "ms" in firsts[0]:
        tensors["length_config"] = _array((first["length_config"] for first in firsts), "O")
        tensors["ms"] = _array((first["ms"] for first in firsts), "f8")
        if firsts[0]["budget_met"] is not None:
            tensors["budget_met"] = _array((first["budget_met"] for first in firsts), "?")
    return tensors


def _absent_from_answers(options: Mapping[str, Any]) -> Mapping[str, str]:
    if "budget_ms" in options:
        return {}
    absent = {"budget_met": "budget_ms"}
    if "max_f1_loss" not in options:
        absent |= dict.fromkeys(("length_config", "ms"), "budget_ms or max_f1_loss")
    return absent


def _logits_job(inputs: Arrays, options: Mapping[str, Any]) -> LogitsJob:
    config = options.get("length_config")
    return LogitsJob(
        input_ids=inputs["input_ids"],
        attention_mask=inputs.get("attention_mask"),
        token_type_ids=inputs.get("token_type_ids"),
        length_config=tuple(config) if isinstance(config, list) else config,
    )


def _logits_tensors(logits: Logits) -> Arrays:
    return logits.outputs


def _classify_job(inputs: Arrays, options: Mapping[str, Any]) -> ClassifyJob:
    texts, seconds = inputs["text"].tolist(), inputs.get("text_pair")
    given = dict(options)
    if given.pop("raw_scores", False):
        given["function_to_apply"] = "none"
    given["truncation"] = given.pop("truncate", False)
    if isinstance(given.get("length_config"), list):
        given["length_config"] = tuple(given["length_config"])
    if seconds is None:
        return ClassifyJob(tuple((text,) for text in texts), given)
    if len(seconds) != len(texts):
        raise InvalidInputError(f"input text_pair has {len(seconds)} texts for {len(texts)} of input text")
    return ClassifyJob(tuple(zip(texts, seconds.tolist(), strict=True)), given)


def _label_tensors(classified: Classified) -> Arrays:
    rows = classified.result
    return {name: _array(([own[name] for own in row] for row in rows), dtype) for name, dtype in _LABEL_TENSORS}


_LABEL_TENSORS: tuple[tuple[Literal["label", "score"], str], ...] = (("label", "O"), ("score", "f8"))


def _array(values: Iterable[Any], dtype: str) -> npt.NDArray[Any]:
    return np.array(list(values), dtype)


_NO_ANSWER: Any = {"answer": "", "score": 0.0, "start": -1, "end": -1}
"""Fills rows up: no answer begins at -1."""

ANSWERS = Model(
    suffix="",
    kind="v2_answers",
    summary="Answer questions about texts.",
    inputs=(TensorSpec("question", "BYTES", (-1,)), TensorSpec("context", "BYTES", (-1,))),
    outputs=(
        TensorSpec("answer", "BYTES", (-1, -1)),
        TensorSpec("score", "FP64", (-1, -1)),
        TensorSpec("start", "INT64", (-1, -1)),
        TensorSpec("end", "INT64", (-1, -1)),
        TensorSpec("length_config", "BYTES", (-1,)),
        TensorSpec("ms", "FP64", (-1,)),
        TensorSpec("budget_met", "BOOL", (-1,)),
    ),
    parameters=(
        "length_config",
        "budget_ms",
        "max_f1_loss",
        "top_k",
        "doc_stride",
        "max_answer_len",
        "max_seq_len",
        "handle_impossible_answer",
        "align_to_words",
        "merge",
        "compete",
        "timeout_ms",
    ),
    job=_answer_job,
    result=_answer_tensors,
    absent=_absent_from_answers,
)
"""Answers questions about texts."""

TOKENS = Model(
    suffix="-tokens",
    kind="v2_tokens",
    summary="Run the model on token ids.",
    inputs=(
        TensorSpec("input_ids", "INT64", (-1, -1)),
        TensorSpec("attention_mask", "INT64", (-1, -1), optional=True),
        TensorSpec("token_type_ids", "INT64", (-1, -1), optional=True),
    ),
    outputs=(TensorSpec("start_logits", "FP32", (-1, -1)), TensorSpec("end_logits", "FP32", (-1, -1))),
    parameters=("length_config", "timeout_ms"),
    job=_logits_job,
    result=_logits_tensors,
    absent=lambda options: {},
)
"""Runs the encoder on token ids."""

LABELS = Model(
    suffix="",
    kind="v2_labels",
    summary="Classify texts.",
    inputs=(TensorSpec("text", "BYTES", (-1,)), TensorSpec("text_pair", "BYTES", (-1,), optional=True)),
    outputs=(TensorSpec("label", "BYTES", (-1, -1)), TensorSpec("score", "FP64", (-1, -1))),
    parameters=("length_config", "raw_scores", "truncate", "timeout_ms"),
    job=_classify_job,
    result=_label_tensors,
    absent=lambda options: {},
)
"""Gives all labels of texts, best first."""

TOKENS_OF_TEXTS = replace(TOKENS, outputs=(TensorSpec("logits", "FP32", (-1, -1)),))
"""Runs a classifier on token ids."""

MODELS: Mapping[Kind, tuple[Model, ...]] = {
    "answers": (ANSWERS, TOKENS),
    "labels": (LABELS, TOKENS_OF_TEXTS),
    "ranks": (LABELS, TOKENS_OF_TEXTS),
}
"""The models that clients see of each kind of bundle."""
