"""Training: from a checkpoint and questions with answers to a checkpoint that does better."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertForQuestionAnswering
from transformers.utils import logging as transformers_logging

from dynamic_tinybert.modeling.checkpoint import Checkpoint, load_checkpoint
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError, TrainingError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.publish import publishing
from dynamic_tinybert.runtime.common.work_dir import digest, work_dir
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import TREATMENT
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.findings import Finding
from dynamic_tinybert.runtime.tasks.question_answering.question_checks import CheckedQuestions, read_questions
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.question_answering.windows import WindowTokenizer

from .batches import plan_batches
from .data import answered_windows, read_answered
from .depth import with_fewer_layers
from .front_meter import FrontMeter, Point, reference_of
from .loop import LoopOptions, run_steps
from .memory import keep_freed_memory
from .objectives.by_name import check_vocabularies, make_objective
from .options import TrainingOptions
from .progress import STEP, Progress
from .result import PACKAGES, Training, name_of, write_result
from .teacher_logits import TAUGHT, with_taught

_HELD_OUT = 256  # questions that thresholds are taken from, at most a tenth of all


def train(
    model: str | Path,
    output: str | Path,
    data: str | Path,
    *,
    options: TrainingOptions | None = None,
    teacher: str | Path | None = None,
    validation: str | Path | None = None,
    limit: int | None = None,
    resume: bool = False,
    local_files_only: bool = False,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train a question-answering checkpoint.

    Until the end everything is in a folder named like `output` and ending in ``.training``, from which an interrupted
    training goes on, with the same losses as if nothing had happened. On a GPU if there is one, else on the CPUs that
    the process may use; then the process keeps memory that it has freed (`keep_freed_memory`).

    Args:
        model: Hub id or folder of a ``BertForQuestionAnswering`` checkpoint.
        output: Folder of the new one; it appears whole or not at all.
        data: Questions with answers to train on, in a form that `read_squad` reads. Unanswerable ones are trained to
            [CLS]; those whose answer is not where the file says are put right where its text stands once in the
            context, and else skipped, as are those that the model cannot read.
        options: How to train.
        teacher: Hub id or folder of the checkpoint to distil from.
        validation: Likewise, to measure F1 on before and after; nothing is chosen by it.
        limit: Only so many questions of each file.
        resume: Go on from what an interrupted training left, if there is one.
        local_files_only: Never touch the network.
        strict: Refuse data in which something is wrong with a question, at the start.
        say: Receives a line for each step of the work, and now and then while it trains.

    Raises:
        CheckpointError: A checkpoint is missing, not supported, or does not fit the other.
        DataError: A file cannot be used: no question to train on, or one that `strict` refuses.
        InvalidInputError: An argument is outside its range, or the interrupted training had other ones.
        TrainingError: The loss is no longer a number, or an interrupted training is there and `resume` is not set.
        StorageError: A file could not be written; what was saved before is kept.
    """
    options = options or TrainingOptions()
    stay_within_quota()
    output = Path(output)
    if output.exists():
        raise InvalidInputError(f"{output} exists already; name another folder, or remove it")
    for quiet in ("set_verbosity_error", "disable_progress_bar"):  # of loads and writes that take a second
        getattr(transformers_logging, quiet)()
    torch.manual_seed(options.seed)
    checkpoint = load_checkpoint(model, local_files_only=local_files_only)
    bert = checkpoint.model
    if options.num_layers is not None:
        bert = with_fewer_layers(bert, options.num_layers)
    taught_by = None if teacher is None else load_checkpoint(teacher, local_files_only=local_files_only)
    if taught_by is not None:
        check_vocabularies(checkpoint, taught_by)
    models = [bert] if taught_by is None else [bert, taught_by.model]
    objective = make_objective(options, bert, checkpoint.scorers, None if taught_by is None else taught_by.model)
    longest = min(own.config.max_position_embeddings for own in models)
    tokenize = WindowTokenizer(checkpoint.tokenizer)
    windows_of = Windowing(tokenize, longest, options.max_seq_len)
    questions = _read(data, validation, limit, windows_of, strict, say)
    examples, scored = questions.examples, questions.scored
    header: dict[str, Any] = {
        "weights": [_digest_of_weights(own) for own in models],
        "data": [digest(Path(file)) for file in (data, validation) if file is not None],
        "limit": limit,
        "options": asdict(options),
        "versions": {name: version(name) for name in PACKAGES},
    }
    place = output.with_name(f"{output.name}.training")
    unfinished = TrainingError(
        f"{place} holds an interrupted training; go on from there with --resume, or delete it to begin anew"
    )
    with (
        work_dir(place, resume=resume, error_if_exists=unfinished) as folder,
        Journal(folder / "journal.jsonl", header) as journal,
    ):
        if not torch.cuda.is_available():
            keep_freed_memory()
        checkpoint.copy_files(folder)
        sizes = {"max_length": longest, "max_seq_len": options.max_seq_len}
        shuffled = [examples[i] for i in np.random.default_rng(options.seed).permutation(len(examples))]
        held_out = min(_HELD_OUT, len(examples) // 10) if scored else 0
        windows = answered_windows(tokenize, shuffled[held_out:], **sizes)
        recipe = options.recipe
        plan = plan_batches(
            [len(window) for window in windows],
            recipe.batch_size,
            epochs=recipe.epochs,
            max_steps=options.max_steps,
            seed=options.seed,
        )
        meter = FrontMeter(tokenize, scored, shuffled[:held_out], **sizes) if scored else None
        if options.dropout is not None:
            _set_dropout(bert, options.dropout)
        if torch.cuda.is_available():
            objective.cuda()
        if objective.needs_taught:
            windows = with_taught(windows, bert, folder / TAUGHT, say)
        before = _measured(journal, "before", meter, reference_of(bert, checkpoint.scorers), None)
        trained_on = f"{len(windows)} windows of {len(examples) - held_out} questions"
        say(f"Training on {trained_on}, {len(plan)} steps of {recipe.batch_size}, objective {options.objective}")
        run_steps(
            objective,
            windows,
            plan,
            folder / "checkpoints",
            LoopOptions(recipe.learning_rate, options.save_steps, options.seed),
            Progress(journal, len(plan), say),
            checkpoint.copy_files,
        )
        after = _measured(journal, "after", meter, reference_of(bert, objective.scorers()), objective.learnt_config())
        steps = [dict(values) for values in journal.all(STEP).values()]
        training = Training(output, steps, before, after, questions.findings)
        on_data = f"{Path(data).name} (SHA-256 {header['data'][0][:16]}…), {trained_on}"
        on_validation = "" if validation is None else f"{Path(validation).name}, {len(scored)} questions"
        facts = _facts(options, checkpoint, taught_by, on_data, on_validation)
        with publishing(output) as target:
            checkpoint.copy_files(target)
            write_result(target, objective, training, facts)
    return training


@dataclass(frozen=True)
class _Questions:
    """Questions to train on, those to measure F1 on, and what is wrong with some of both files."""

    examples: Sequence[Example]
    scored: Sequence[Example]
    findings: Sequence[Finding]


def _read(
    data: str | Path,
    validation: str | Path | None,
    limit: int | None,
    windows_of: Windowing,
    strict: bool,
    say: Callable[[str], None],
) -> _Questions:
    """Read both files, and say what is wrong with them."""
    questions = read_answered(data, limit, windows_of, strict=strict)
    asked = None if validation is None else _read_scored(validation, limit, windows_of, strict)
    for line in (*questions.lines, *([] if asked is None else asked.lines)):
        say(line)
    if asked is None:
        return _Questions(questions.examples, (), tuple(questions.findings))
    scored = [example for example in asked.examples if example.answers or example.is_impossible]
    return _Questions(questions.examples, scored, (*questions.findings, *asked.findings))


def _read_scored(path: str | Path, limit: int | None, windows_of: Windowing, strict: bool) -> CheckedQuestions:
    """Questions to measure F1 on; those without an answer are among them."""
    name = Path(path).name
    checked = read_questions(path, TREATMENT, windows_of, limit=limit, strict=strict)
    if not any(example.answers or example.is_impossible for example in checked.examples):
        raise DataError(f"{name} holds no question with an answer, and scoring needs some")
    return checked


def _facts(
    options: TrainingOptions, checkpoint: Checkpoint, taught_by: Checkpoint | None, data: str, scored: str
) -> dict[str, object]:
    """What the model card says of a training."""
    return {
        "base": name_of(checkpoint.source),
        "layers": "" if options.num_layers is None else f", {options.num_layers} of its layers, evenly chosen",
        "data": data,
        "objective": options.objective,
        "teacher": "" if taught_by is None else f", taught by {name_of(taught_by.source)}",
        "batch_size": options.recipe.batch_size,
        "learning_rate": options.recipe.learning_rate,
        "seed": options.seed,
        "scored": scored,
    }


def _measured(
    journal: Journal, when: str, meter: FrontMeter | None, reference: ReferenceModel, more: LengthConfig | None
) -> list[Point]:
    """What a model gives; measured once, then read from the journal."""
    if meter is None:
        return []
    recorded = journal.get("front", when)
    if recorded is None:
        points = meter.front(reference, {} if more is None else {"learnt": more})
        recorded = [point.to_dict() for point in points]
        journal.add("front", when, recorded)
    return [Point.from_dict(point) for point in recorded]


def _set_dropout(bert: BertForQuestionAnswering, probability: float) -> None:
    """Of this training; the configuration, which goes into the new checkpoint, keeps its own."""
    for module in bert.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def _digest_of_weights(bert: BertForQuestionAnswering) -> str:
    digest = hashlib.sha256()
    for tensor in bert.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
