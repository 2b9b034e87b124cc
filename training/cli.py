"""The command ``dynamic-tinybert train``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import RECIPES, TrainingOptions


def train(
    model: Annotated[
        str, typer.Argument(help="Hub id or folder of a checkpoint, or of an encoder to give a new head to.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder of the new checkpoint; it must not exist.")],
    data: Annotated[
        Path, typer.Option(help="Examples to train on: questions with answers, labelled texts, or rankings.")
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="Give the encoder a new head for this task, question_answering or sequence_classification; default: "
            "train the checkpoint's own."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="For a new head of classification: names of its classes, separated by commas; default: one "
            "output, a score."
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help=f"Training objective: {', '.join(RECIPES)}.")] = "fine-tune",
    teacher: Annotated[str | None, typer.Option(help="Hub id or folder of the checkpoint to distil from.")] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Examples to measure the model on, before and after the training, at several length configurations."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many examples of each file.")] = None,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="Train a student with only this many layers, evenly spaced.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; default: by objective.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows per step; default: by objective.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; default: by objective.")] = None,
    head_learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of the head, such as a new one; default: as for the rest.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout during training; default: the checkpoint's.")] = None,
    max_seq_len: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest number of tokens in a window; default: 384 for questions, else what the model reads."
        ),
    ] = None,
    layer_dropout: Annotated[
        float, typer.Option(help="For length-drop: probability of leaving a layer out of a random configuration.")
    ] = 0.2,
    scorer_weight: Annotated[
        float, typer.Option(help="Weight of the scorers' loss, from which the model learns as well.")
    ] = 1.0,
    macs_fewer: Annotated[
        float,
        typer.Option(help="For straight-through and soft-masks: by what factor to reduce MACs."),
    ] = 2.6,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints to resume from.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted training.")] = False,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never use the network.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse data with a misplaced answer or another faulty example."),
    ] = False,
) -> None:
    """Train a checkpoint: fine-tune it, distil it, or prepare it for dropped tokens."""
    for name in ("torchao", "torch.utils._pytree"):  # suppress warnings when they are imported
        logging.getLogger(name).setLevel(logging.ERROR)
    from . import train as run  # raises an error that names the extra if a dependency is missing

    options = TrainingOptions(
        objective=objective,
        num_layers=num_layers,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        dropout=dropout,
        max_seq_len=max_seq_len,
        layer_dropout=layer_dropout,
        scorer_weight=scorer_weight,
        macs_fewer=macs_fewer,
        save_steps=save_steps,
        seed=seed,
    )
    result = run(
        model,
        output,
        data,
        task=task,
        labels=() if labels is None else tuple(labels.split(",")),
        options=options,
        teacher=teacher,
        validation=validation,
        limit=limit,
        resume=resume,
        local_files_only=local_files_only,
        strict=strict,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for when, points in (("before", result.before), ("after", result.after)):
        for point in points:
            fewer = result.before[0].macs / point.macs
            print(f"{when:6} {point.name:>6}: {result.metric} {point.score:.2f}, {fewer:.2f}x fewer MACs")
    print(result.path)
