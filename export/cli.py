"""The command ``dynamic-tinybert export``."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from dynamic_tinybert.calibration.int8.tuning import chosen
from dynamic_tinybert.runtime.common.errors import LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig

if TYPE_CHECKING:
    from .exporter import ExportReport


class Precision(StrEnum):
    """Precisions of a bundle."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    model: Annotated[
        str, typer.Argument(help="Hub id or folder of a BertForQuestionAnswering or BertForSequenceClassification.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder of the new bundle.")],
    precision: Annotated[Precision, typer.Option(help="INT8 needs --calibration-data.")] = Precision.INT8,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            help="Questions (SQuAD JSON or rows) for the INT8 ranges, for a classifier texts; answers are not used."
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Others, in the same form, to compare INT8 with FP32 on; all are used, and a thousand are enough. "
            "Default: other articles or groups of the calibration data."
        ),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Number of calibration windows.")] = 128,
    tune: Annotated[
        bool,
        typer.Option(help="Try about ten INT8 settings; each takes as long as a calibration and an evaluation."),
    ] = True,
    length_config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIST",
            help="Keep ratios, as in fast=1,0.9,0.7,0.5,0.3,0.1, or token counts and the window that they refer to, as "
            "in paper=315,251,242,159,142,33@384; may be repeated.",
        ),
    ] = None,
    weight_bits: Annotated[int, typer.Option(min=7, max=8, help="7 for other runtimes on CPUs without VNNI.")] = 8,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    token: Annotated[str | None, typer.Option(help="Hub token.", envvar="HF_TOKEN", show_envvar=False)] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Folder for downloads.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never touch the network.")] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run the checkpoint's own tokenizer code, if it has any."),
    ] = False,
) -> None:
    """Export a PyTorch checkpoint to an OpenVINO bundle whose layers can drop tokens."""
    for name in ("torchao", "torch.utils._pytree"):  # suppress import warnings of torch's add-ons
        logging.getLogger(name).setLevel(logging.ERROR)
    from . import export_model  # raises an error that names the missing extra

    transformers_logging = import_module("transformers.utils.logging")
    transformers_logging.disable_progress_bar()  # loading takes a second
    start = perf_counter()
    report = export_model(
        model,
        output,
        precision=precision.value,
        calibration_data=calibration_data,
        validation=validation,
        num_samples=num_samples,
        tune=tune,
        length_configs=_named_configs(length_config or []),
        weight_bits=weight_bits,
        force=force,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        say=partial(print, flush=True),  # flush: steps take minutes, and the output may be a pipe
    )
    _print(report)
    print(f"Done in {perf_counter() - start:.0f} s: {report.path} ({report.size / 1e6:.1f} MB)")


def _named_configs(texts: list[str]) -> dict[str, LengthConfig]:
    configs: dict[str, LengthConfig] = {}
    for text in texts:
        name, equals, numbers = text.partition("=")
        if not equals:
            raise LengthConfigError(f"--length-config {text!r} has no name: give NAME={text}")
        if name in configs:
            raise LengthConfigError(f"--length-config names {name!r} twice; give each configuration a name of its own")
        configs[name] = LengthConfig.parse(numbers)
    return configs


def _print(report: ExportReport) -> None:
    print("FP32 graph against the PyTorch reference (largest difference of a logit; tokens kept by one side only):")
    for name, parity in report.parity.items():
        print(f"  {name:16} {parity.max_difference:.1e}   {parity.disputed} of {parity.chosen_from}")
    if report.int8_steps:
        change = chosen(report.int8_steps).change
        f1 = "" if change.f1 is None else ", F1 {:+.2f} [{:+.2f}, {:+.2f}]".format(*change.f1)
        print(
            f"INT8 against FP32 on {change.questions} held-out examples: {change.moved:.1f} % of the probability "
            f"moved, same answer to {change.same_answers:.1f} %{f1}"
        )
        if not change.tolerable:
            print(
                "This is a large change; calibrate on data closer to the checkpoint's, or export with --precision fp32"
            )
