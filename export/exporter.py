"""Export a PyTorch checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import openvino as ov
from tqdm import tqdm

from dynamic_tinybert.calibration.int8.tuning import Step
from dynamic_tinybert.modeling.checkpoint import Checkpoint, load_checkpoint
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.modeling.scorer import scorer_weights
from dynamic_tinybert.modeling.torch_threads import stay_within_quota
from dynamic_tinybert.runtime.bundles.bundle import check_length_configs
from dynamic_tinybert.runtime.bundles.files import TOKENIZER
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.publish import publishing
from dynamic_tinybert.runtime.encoder.learnt_layers import LearntLayers
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks import task_named

from .bundling import write_bundle
from .ir import write_ir
from .parity import Parity, check_parity, graph_runner, random_batch
from .quantization import MORE_SAMPLES, quantize
from .tasks import sample_reader
from .tasks.samples import HeldOut, Samples


@dataclass(frozen=True)
class ExportReport:
    """The result of an export, and how it compares with its checkpoint.

    Attributes:
        path: The bundle.
        size: Its size in bytes.
        parity: By length configuration, the comparison of the FP32 graph with the PyTorch reference.
        int8_steps: The INT8 settings that were tried, each with its change against FP32 on held-out questions;
            `calibration.int8.tuning.chosen` returns the one that the bundle has. Empty for an FP32 bundle.
    """

    path: Path
    size: int
    parity: Mapping[str, Parity]
    int8_steps: Sequence[Step]


def export_model(
    model: str | Path,
    output: str | Path,
    *,
    precision: Literal["fp32", "int8"] = "int8",
    calibration_data: str | Path | None = None,
    validation: str | Path | None = None,
    num_samples: int = 128,
    tune: bool = True,
    length_configs: Mapping[str, LengthConfig | Sequence[float]] | None = None,
    weight_bits: int = 8,
    force: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ExportReport:
    """Export a checkpoint to a bundle.

    Args:
        model: Hub id or folder of a ``BertForQuestionAnswering`` or ``BertForSequenceClassification`` checkpoint.
        output: Folder of the bundle; it appears complete or not at all.
        precision: INT8 by Neural Compressor's SmoothQuant and static quantisation, or FP32.
        calibration_data: Questions with their contexts, in a form that `read_squad` reads, to take the INT8 ranges
            from; for a classifier texts or pairs, in a form that `read_texts` reads. Answers and labels are not used.
        validation: Questions to compare INT8 with FP32 on, also by F1 if all have answers. By default, questions of
            other articles of `calibration_data`, without F1.
        num_samples: Number of windows of `calibration_data` to calibrate with.
        tune: Search for the INT8 setting that moves the least probability on those questions; else use the default.
        length_configs: Length configurations by name; ``full`` is always added.
        weight_bits: 7 for other runtimes on CPUs without VNNI, where sums of 8-bit products can saturate.
        force: Replace an existing bundle.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; True for the token that is stored on this machine.
        cache_dir: Folder for downloads, instead of the Hub's own cache.
        local_files_only: Never touch the network.
        trust_remote_code: Run the checkpoint's own tokenizer code, if it has any.
        say: Called with a line of text for each step.

    Raises:
        CheckpointError: The checkpoint is missing or not supported.
        DataError: The calibration or validation data cannot be used.
        InvalidInputError: An argument is outside its range.
        LengthConfigError: A length configuration does not fit the model.
        BundleExistsError: `output` exists and `force` is not set.
        ParityError: The graph does not compute what the checkpoint does.
        StorageError: A file could not be written.
    """
    stay_within_quota()
    _check_arguments(precision, weight_bits, calibration_data, num_samples)
    with publishing(Path(output), force=force) as folder:
        say(f"Loading {model}")
        checkpoint = load_checkpoint(
            model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
        )
        for note in checkpoint.notes:
            say(note)
        configs = _checked_configs(checkpoint, length_configs or {})
        checkpoint.copy_files(folder)
        samples: Samples[HeldOut] | None = None  # read before the long steps, so that unusable data is refused at once
        if precision == "int8" and calibration_data is not None:
            most = num_samples * (MORE_SAMPLES if tune else 1)
            samples = _read_samples(checkpoint, folder / TOKENIZER, calibration_data, validation, most)
            for line in samples.lines:
                say(line)
        graph = write_ir(checkpoint.model)
        say("Comparing the FP32 graph with the PyTorch reference")
        parity = _parity(checkpoint, graph, configs)
        steps: Sequence[Step] = ()
        record: Mapping[str, object] = {"precision": "fp32", "weight_bits": None}
        if samples is not None:
            say(
                f"{'Tuning' if tune else 'Calibrating'} INT8 on windows of {calibration_data}, compared with FP32 on "
                f"{len(samples.held_out)} examples of {samples.held_out.name}"
            )
            quantization = quantize(
                checkpoint,
                graph,
                samples,
                num_samples=num_samples,
                tuned=tune,
                weight_bits=weight_bits,
                scratch=folder,
                say=say,
            )
            graph, steps, record = quantization.graph, quantization.steps, quantization.record
        say("Writing the bundle")
        write_bundle(folder, checkpoint, graph, configs, record)
        size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportReport(Path(output), size, parity, steps)


def _check_arguments(precision: str, weight_bits: int, calibration_data: object, num_samples: int) -> None:
    if precision not in ("fp32", "int8"):
        raise InvalidInputError(f"precision is {precision!r}; give 'fp32' or 'int8'")
    if weight_bits not in (7, 8):
        raise InvalidInputError(f"weight_bits is {weight_bits!r}; give 8, or 7 for other runtimes on CPUs without VNNI")
    if precision == "int8" and calibration_data is None:
        raise InvalidInputError("INT8 needs questions for its ranges: give calibration data, or export to fp32")
    require_int("num_samples", num_samples, 1)


def _checked_configs(
    checkpoint: Checkpoint, length_configs: Mapping[str, LengthConfig | Sequence[float]]
) -> dict[str, LengthConfig]:
    """The length configurations of the bundle, "full" first; raises LengthConfigError if one does not fit."""
    num_layers = checkpoint.model.config.num_hidden_layers
    configs = {"full": LengthConfig.full(num_layers)} | {
        name: config if isinstance(config, LengthConfig) else LengthConfig(tuple(config))
        for name, config in length_configs.items()
    }
    check_length_configs(configs, num_layers)
    if checkpoint.scorers:
        for length_config in configs.values():
            LearntLayers(frozenset(checkpoint.scorers), frozenset()).carried_out(length_config)  # raises if it cannot
    return configs


def _read_samples(
    checkpoint: Checkpoint, tokenizer_file: Path, data: str | Path, validation: str | Path | None, count: int
) -> Samples[HeldOut]:
    read = sample_reader(checkpoint.task.name)
    max_length = checkpoint.model.config.max_position_embeddings
    return read(tokenizer_file, Path(data), None if validation is None else Path(validation), count, max_length)


def _parity(checkpoint: Checkpoint, graph: ov.Model, configs: Mapping[str, LengthConfig]) -> dict[str, Parity]:
    config = checkpoint.model.config
    scorers = checkpoint.scorers
    reference = ReferenceModel(checkpoint.model, "learnt" if scorers else "attention", scorers)
    weights = {layer: scorer_weights(scorer) for layer, scorer in scorers.items()} or None
    if scorers:  # `full` runs none of them
        configs = {**configs, "all scorers": _using_all(scorers, config.num_hidden_layers)}
    longest = min(384, config.max_position_embeddings)
    mixed = [min(length, longest) for length in (171, 64, 17)]
    batches = [random_batch(lengths, config.vocab_size) for lengths in (mixed[2:], [longest], mixed)]
    compiled = partial(
        graph_runner,
        graph,
        task=task_named(checkpoint.task.name),
        num_heads=config.num_attention_heads,
        scorers=weights,
    )
    return {
        name: check_parity(reference, compiled(c), batches, c)
        for name, c in tqdm(configs.items(), desc="Comparing", disable=None)
    }


def _using_all(scored: Collection[int], num_layers: int) -> LengthConfig:
    """A configuration in which each layer with a scorer drops a fifth of what is left, so that all scorers run."""
    ratios, ratio = [], 1.0
    for layer in range(num_layers):
        if layer in scored:
            ratio *= 0.8
        ratios.append(ratio)
    return LengthConfig(tuple(ratios))
