"""Carry out jobs with an asynchronous service, and say what a server tells of its model."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks import task_named
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels, sigmoid
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import RankedDocument

from .answerer import AsyncQuestionAnswerer
from .classifier import AsyncTextClassifier
from .jobs import AnswerJob, ClassifyJob, ExplainJob, Job, Logits, LogitsJob, ModelFacts, RankJob, Result
from .reranker import AsyncReranker
from .service import AsyncService
from .usage import name_that_ran, usage_of


async def carry_out(service: AsyncService, job: Job, *, deadline: float | None = None) -> Result:
    """Carry out a job when its turn comes; all kinds of jobs wait in the service's one queue.

    Args:
        service: What carries it out. Cancelling the awaiting task takes the job out of its queue.
        job: The job.
        deadline: Time of `time.monotonic` by which the result is wanted; None for any time.

    Returns:
        What the kind of the job says.

    Raises:
        OverloadedError: The service's queue is full.
        DeadlineExceededError: There was no result by the deadline.
        ClosedError: The service is closed.
        InvalidInputError: The model is for another task; and, as LengthConfigError and InferenceError, what the model's
            own methods raise for this input.
    """
    model = service.model
    match job, service:
        case AnswerJob(questions, contexts, options, arrived), AsyncQuestionAnswerer() as answerer:
            return await answerer.answered(questions, contexts, deadline=deadline, arrived=arrived, **options)
        case ExplainJob(question, context, config), AsyncQuestionAnswerer():
            return await service.in_turn(
                lambda: explain(model, question, context, length_config=config).to_dict(), deadline=deadline
            )
        case ClassifyJob(texts, options), AsyncTextClassifier() as classifier:
            inputs = [dict(zip(("text", "text_pair"), own, strict=False)) for own in texts]
            return await classifier.classified(inputs, deadline=deadline, **options)
        case RankJob(query, documents, raw_scores, options), AsyncReranker() as reranker:
            ranked = await reranker.ranked(query, documents, deadline=deadline, **options)
            return ranked if raw_scores else replace(ranked, result=list(map(_with_sigmoid, ranked.result)))
        case LogitsJob() as logits_job, _:
            return await service.in_turn(lambda: _logits(model, logits_job), deadline=deadline)
    raise InvalidInputError(f"a model for {model.bundle.task!r} cannot carry out a {type(job).__name__}")


def compile_graphs(model: LengthAdaptiveModel) -> None:
    """Compile all graphs that jobs may need, also the one that requests of different configurations share."""
    model.warm_up()
    model([[0]], length_configs=[None])


def model_facts(model: LengthAdaptiveModel, name: str) -> ModelFacts:
    """What a server says about a model that clients call `name`."""
    bundle = model.bundle
    return ModelFacts(
        name=name,
        version="1",
        task=bundle.task,
        labels=Labels.of(bundle).names if bundle.task == "sequence_classification" else (),
        max_length=model.max_length,
        vocab_size=bundle.vocab_size,
        num_layers=bundle.shape.num_layers,
        length_configs={
            name: {
                "keep_ratios": list(named.config.keep_ratios),
                "thresholds": list(named.config.thresholds),
                "measured": None if named.measured is None else dict(named.measured),
            }
            for name, named in model.length_configs.items()
        },
        default_length_config=bundle.default_length_config,
        quantization=dict(bundle.quantization),
        cpu=cpu.name(),
        kernels=extension_library.isa(),
        threads=int(model.execution.get("INFERENCE_NUM_THREADS", default_threads())),
        versions={name: version(name) for name in ("dynamic-tinybert", "openvino")},
    )


def _logits(model: LengthAdaptiveModel, job: LogitsJob) -> Logits:
    config: dict[str, Any] = {"length_config": job.length_config}
    if isinstance(job.length_config, tuple):  # in the one graph for all ratios, so that none is compiled for a client
        config = {"length_configs": [job.length_config] * len(job.input_ids)}
    output = model(
        input_ids=job.input_ids, attention_mask=job.attention_mask, token_type_ids=job.token_type_ids, **config
    )
    usage = usage_of(model, output, job.input_ids, job.attention_mask)
    outputs = {name: getattr(output, name) for name in task_named(model.bundle.task).output_names}
    return Logits(outputs, name_that_ran(model, job.length_config), usage.tokens, usage.kept)


def _with_sigmoid(document: RankedDocument) -> RankedDocument:
    """The document with the sigmoid of its score, as float32 rounds it."""
    return {**document, "score": float(sigmoid(np.float32(document["score"]).reshape(1))[0])}
