"""The command ``dynamic-tinybert train``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import RECIPES, TrainingOptions


def train(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a BertForQuestionAnswering checkpoint.")],
    output: Annotated[Path, typer.Argument(help="Folder of the new checkpoint.")],
    data: Annotated[Path, typer.Option(help="Questions with answers to train on, SQuAD JSON or rows.")],
    objective: Annotated[str, typer.Option(help=f"What to minimise: {', '.join(RECIPES)}.")] = "fine-tune",
    teacher: Annotated[str | None, typer.Option(help="Hub id or folder of the checkpoint to distil from.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Questions to measure F1 on, before and after, at several costs.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions of each file.")] = None,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="Train a student with so many of the layers, evenly chosen.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="How often to see the data; by default the objective's.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps, instead of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows of a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest; by default the objective's.")] = None,
    dropout: Annotated[float | None, typer.Option(help="In training; by default the checkpoint's.")] = None,
    max_seq_len: Annotated[int | None, typer.Option(min=1, help="Tokens of a window; 384 by default.")] = None,
    layer_dropout: Annotated[
        float, typer.Option(help="Of length-drop: chance of a layer to be left out of a random configuration.")
    ] = 0.2,
    scorer_weight: Annotated[
        float, typer.Option(help="How much the model learns for its scorers, where it has some.")
    ] = 1.0,
    macs_fewer: Annotated[
        float, typer.Option(help="Of straight-through and soft-masks: times fewer MACs that selection shall need.")
    ] = 2.6,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints to go on from.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what an interrupted training left.")] = False,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never touch the network.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with a misplaced answer or another wrong question.")
    ] = False,
) -> None:
    """Train a checkpoint: fine-tune it, distil it, or teach it to live with dropped tokens."""
    for name in ("torchao", "torch.utils._pytree"):  # what torch's add-ons warn of when they are imported
        logging.getLogger(name).setLevel(logging.ERROR)
    from . import train as run  # names the extra that is missing, if one is

    options = TrainingOptions(
        objective=objective,
        num_layers=num_layers,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
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
            print(f"{when:6} {point.name:>6}: F1 {point.f1:.2f}, {fewer:.2f}x fewer MACs")
    print(result.path)
