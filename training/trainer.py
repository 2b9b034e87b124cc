"""Train a checkpoint on labelled examples to get a new checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from dynamic_tinybert.calibration.data import shuffled
from dynamic_tinybert.modeling.memory import keep_freed_memory
from dynamic_tinybert.modeling.new_head import NewHead
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.common.errors import InvalidInputError, TrainingError
from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.runtime.common.publish import publishing
from dynamic_tinybert.runtime.common.work_dir import digest, work_dir
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.measure import Finding

from .batches import TrainingRow, plan_rows
from .front_meter import FrontMeter, Point
from .loop import LoopOptions, run_steps
from .models import Models, digest_of_weights, load_models, set_dropout
from .objectives.base import Objective
from .objectives.factory import make_objective
from .options import TrainingOptions
from .progress import STEP, Progress
from .reference_runs import reference_of
from .result import PACKAGES, Training, name_of, write_result
from .tasks.task import Reader
from .teacher_logits import TEACHER_LOGITS, with_teacher_logits

_HELD_OUT = 256  # largest number of examples, at most a tenth of all, to take thresholds from


def train(
    model: str | Path,
    output: str | Path,
    data: str | Path,
    *,
    task: str | None = None,
    labels: Sequence[str] = (),
    options: TrainingOptions | None = None,
    teacher: str | Path | None = None,
    validation: str | Path | None = None,
    limit: int | None = None,
    resume: bool = False,
    local_files_only: bool = False,
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train a checkpoint for question answering, classification or ranking.

    Until the end, all files are in a folder with the name of `output` and the ending ``.training``, from which an
    interrupted training can be resumed, with the same losses as without the interruption. The training runs on a GPU if
    there is one, else on the CPUs that the process may use; then the process keeps freed memory (`keep_freed_memory`).

    Args:
        model: Hub id or folder of a checkpoint.
        output: Folder of the new checkpoint, which must not exist; it appears complete or not at all.
        data: Examples to train on. For question answering, in a form that `read_squad` reads: unanswerable questions
            are trained to [CLS]; an answer that is not where the file says is corrected if its text occurs once in the
            context, else its question is skipped, as are questions that the model cannot read. For classification, in
            a form that `read_texts` or, for a model with one output, `read_rankings` reads.
        task: Name of a task: give the checkpoint's encoder a new head for it, with random weights. None to train the
            head that the checkpoint has.
        labels: For a new head of classification, the names of its classes; without any it has one output, a score.
        options: Options of the training.
        teacher: Hub id or folder of the checkpoint to distil from.
        validation: Examples, in the same form, to measure models on before and after; nothing is chosen on them.
        limit: Use only the first `limit` examples of each file.
        resume: Resume an interrupted training, if there is one.
        local_files_only: Never use the network.
        strict: Refuse data with a faulty example, before the training starts.
        say: Called with a line of text for each stage of the work, and every 20 seconds during the steps.

    Raises:
        CheckpointError: A checkpoint is missing, not supported, or does not match the other one.
        DataError: A file cannot be used: it has no example to train on, or one that `strict` refuses.
        InvalidInputError: An argument is outside its range, or the interrupted training had other arguments.
        TrainingError: The loss or a weight is not finite, or there is an interrupted training and `resume` is not set.
        StorageError: A file could not be written; what was saved before is kept.
    """
    options = options or TrainingOptions()
    output = Path(output)
    if output.exists():
        raise InvalidInputError(f"{output} exists already; give another folder, or remove it")
    stay_within_quota()
    _silence_transformers()
    torch.manual_seed(options.seed)
    if labels and task is None:
        raise InvalidInputError("labels are for a new head; name its task, too")
    new_head = None if task is None else NewHead.of(task, labels)
    models = load_models(
        model, teacher, num_layers=options.num_layers, local_files_only=local_files_only, new_head=new_head
    )
    teacher_model = None if models.teacher is None else models.teacher.model
    objective = make_objective(options, models.trained, models.checkpoint.scorers, teacher_model)
    reader = objective.task.reader(
        models.checkpoint.tokenizer, models.trained.config, models.max_length, options.max_seq_len
    )
    examples = _read(reader, data, validation, limit, strict, options.seed, say)
    header = _journal_header(models, [file for file in (data, validation) if file is not None], limit, options)
    place = output.with_name(f"{output.name}.training")
    unfinished = TrainingError(
        f"{place} holds an interrupted training; continue it with --resume, or delete it to start again"
    )
    with (
        work_dir(place, resume=resume, error_if_exists=unfinished) as folder,
        Journal(folder / "journal.jsonl", header) as journal,
    ):
        models.checkpoint.copy_files(folder)
        rows: Sequence[TrainingRow] = reader.rows(examples.training)
        meter = _meter(reader, examples)
        metric = "score" if meter is None else meter.metric
        rows = _prepare(objective, models, options, rows, folder, say)
        before = _measured(journal, "before", meter, reference_of(models.trained, models.checkpoint.scorers))
        trained_on = f"{len(rows)} windows of {len(examples.training)} {objective.task.examples}"
        _run(objective, models, options, rows, trained_on, folder, journal, say)
        reference = reference_of(models.trained, objective.scorers())
        after = _measured(journal, "after", meter, reference, objective.learnt_config())
        losses = [dict(parts) for parts in journal.all(STEP).values()]
        training = Training(output, losses, before, after, examples.findings, metric)
        on_data = f"{Path(data).name} (SHA-256 {header['data'][0][:16]}…), {trained_on}"
        scored_on = ""
        if validation is not None:
            scored_on = f"{Path(validation).name}, {len(examples.scored)} {objective.task.examples}"
        with publishing(output) as target:
            models.checkpoint.copy_files(target)
            write_result(target, objective, training, _facts(options, models, on_data, scored_on))
    return training


def _silence_transformers() -> None:
    """Hide transformers' warnings, and the progress bars of loading and saving, which take a second."""
    for function in ("set_verbosity_error", "disable_progress_bar"):  # they have no types
        getattr(transformers_logging, function)()


@dataclass(frozen=True)
class _Examples:
    """The examples of a training.

    Attributes:
        training: Examples to train on, shuffled.
        sample: Examples to take thresholds from; empty if nothing is measured.
        scored: Examples that the model is measured on before and after; may be empty.
        findings: Faults of the examples of both files.
    """

    training: Sequence[Any]
    sample: Sequence[Any]
    scored: Sequence[Any]
    findings: Sequence[Finding]


def _read(
    reader: Reader[Any],
    data: str | Path,
    validation: str | Path | None,
    limit: int | None,
    strict: bool,
    seed: int,
    say: Callable[[str], None],
) -> _Examples:
    """Read both files, report what is wrong with them, and hold out a sample of the training examples."""
    read = [reader.read_training(data, limit, strict=strict)]
    if validation is not None:
        read.append(reader.read_scored(validation, limit, strict=strict))
    for line in (line for own in read for line in own.lines):
        say(line)
    examples, scored = read[0].examples, [] if validation is None else read[1].examples
    in_random_order = shuffled(examples, seed)
    held_out = min(_HELD_OUT, len(examples) // 10) if scored else 0
    findings = tuple(finding for own in read for finding in own.findings)
    return _Examples(in_random_order[held_out:], in_random_order[:held_out], scored, findings)


def _journal_header(
    models: Models, files: Sequence[str | Path], limit: int | None, options: TrainingOptions
) -> dict[str, Any]:
    """What must be the same for a training to be resumed."""
    return {
        "weights": [digest_of_weights(model) for model in models.all],
        "data": [digest(Path(file)) for file in files],
        "limit": limit,
        "options": asdict(options),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _meter(reader: Reader[Any], examples: _Examples) -> FrontMeter | None:
    """The meter of models before and after the training; None without validation data."""
    if not examples.scored:
        return None
    return FrontMeter(reader.scored_inputs(examples.scored), reader.inputs(examples.sample))


def _prepare(
    objective: Objective,
    models: Models,
    options: TrainingOptions,
    rows: Sequence[TrainingRow],
    folder: Path,
    say: Callable[[str], None],
) -> Sequence[TrainingRow]:
    """Set up dropout, device and memory; return the rows, with teacher logits if the objective needs them."""
    if options.dropout is not None:
        set_dropout(models.trained, options.dropout)
    if torch.cuda.is_available():
        objective.cuda()
    else:
        keep_freed_memory()
    if not objective.needs_teacher_logits:
        return rows
    return with_teacher_logits(rows, models.trained, folder / TEACHER_LOGITS, say)


def _run(
    objective: Objective,
    models: Models,
    options: TrainingOptions,
    rows: Sequence[TrainingRow],
    trained_on: str,
    folder: Path,
    journal: Journal,
    say: Callable[[str], None],
) -> None:
    """Run all steps, or those that an interrupted training did not reach."""
    recipe = options.recipe
    plan = plan_rows(
        rows,
        recipe.batch_size,
        epochs=recipe.epochs,
        max_steps=options.max_steps,
        seed=options.seed,
    )
    say(f"Training on {trained_on}, {len(plan)} steps of {recipe.batch_size}, objective {options.objective}")
    run_steps(
        objective,
        rows,
        plan,
        folder / "checkpoints",
        LoopOptions(recipe.learning_rate, options.save_steps, options.seed, options.head_learning_rate),
        Progress(journal, len(plan), say),
        models.checkpoint.copy_files,
    )


def _measured(
    journal: Journal,
    when: str,
    meter: FrontMeter | None,
    reference: ReferenceModel,
    learnt_config: LengthConfig | None = None,
) -> list[Point]:
    """Measure the front of a model, or read it from the journal if it was measured before."""
    if meter is None:
        return []
    recorded = journal.get("front", when)
    if recorded is None:
        points = meter.front(reference, {} if learnt_config is None else {"learnt": learnt_config})
        recorded = [point.to_dict() for point in points]
        journal.add("front", when, recorded)
    return [Point.from_dict(point) for point in recorded]


def _facts(options: TrainingOptions, models: Models, data: str, scored: str) -> dict[str, object]:
    """The facts of the model card."""
    return {
        "base": name_of(models.checkpoint.source),
        "layers": "" if options.num_layers is None else f", {options.num_layers} of its layers, evenly spaced",
        "data": data,
        "objective": options.objective,
        "teacher": "" if models.teacher is None else f", distilled from {name_of(models.teacher.source)}",
        "batch_size": options.recipe.batch_size,
        "learning_rate": options.recipe.learning_rate,
        "seed": options.seed,
        "scored": scored,
    }
