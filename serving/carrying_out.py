"""Carry out jobs with an asynchronous answerer, and say what a server tells of its model."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, overload

import numpy as np

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import kept_by_layer
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered

from .answerer import AsyncQuestionAnswerer
from .jobs import AnswerJob, ExplainJob, Job, Logits, LogitsJob, ModelFacts


@overload
async def carry_out(answerer: AsyncQuestionAnswerer, job: AnswerJob, *, deadline: float | None = None) -> Answered: ...


@overload
async def carry_out(answerer: AsyncQuestionAnswerer, job: LogitsJob, *, deadline: float | None = None) -> Logits: ...


@overload
async def carry_out(
    answerer: AsyncQuestionAnswerer, job: ExplainJob, *, deadline: float | None = None
) -> dict[str, Any]: ...


@overload
async def carry_out(
    answerer: AsyncQuestionAnswerer, job: Job, *, deadline: float | None = None
) -> Answered | Logits | dict[str, Any]: ...


async def carry_out(
    answerer: AsyncQuestionAnswerer, job: Job, *, deadline: float | None = None
) -> Answered | Logits | dict[str, Any]:
    """Carry out a job when its turn comes; all kinds of jobs wait in the answerer's one queue.

    Args:
        answerer: What carries it out. Cancelling the awaiting task takes the job out of its queue.
        job: The job.
        deadline: Time of `time.monotonic` by which the result is wanted; None for any time.

    Raises:
        OverloadedError: The answerer's queue is full.
        DeadlineExceededError: There was no result by the deadline.
        ClosedError: The answerer is closed.
        InvalidInputError, LengthConfigError, InferenceError: What the model's own methods raise for this input.
    """
    model = answerer.answerer.model
    match job:
        case AnswerJob(questions, contexts, options, arrived):
            return await answerer.answered(questions, contexts, deadline=deadline, arrived=arrived, **options)
        case LogitsJob():
            return await answerer.in_turn(lambda: _logits(model, job), deadline=deadline)
        case ExplainJob(question, context, config):
            return await answerer.in_turn(
                lambda: explain(model, question, context, length_config=config).to_dict(), deadline=deadline
            )


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
    batch, length = output.start_logits.shape
    tokens = batch * length if job.attention_mask is None else int(np.count_nonzero(job.attention_mask))
    kept = {layer: int((positions < length).sum()) for layer, positions in output.kept_positions.items()}
    name = model.bundle.default_length_config if job.length_config is None else job.length_config
    return Logits(
        output.start_logits,
        output.end_logits,
        name if isinstance(name, str) else None,
        tokens,
        kept_by_layer(kept, tokens, model.bundle.shape.num_layers),
    )
