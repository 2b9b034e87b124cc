"""From a PyTorch checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov
import torch
from tqdm import tqdm

from dynamic_tinybert.calibration import quantize_linears
from dynamic_tinybert.runtime.bundle import (
    MODEL_XML,
    TOKENIZER,
    NamedLengthConfig,
    check_length_configs,
    write_manifest,
)
from dynamic_tinybert.runtime.checks import require_int
from dynamic_tinybert.runtime.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.publish import publishing, writing

from .checkpoint import Checkpoint, load_checkpoint
from .ir import write_ir
from .parity import Batch, Parity, check_parity, graph_runner, random_batch
from .reference import ReferenceModel
from .samples import calibration_samples

HELD_OUT = 32
"""Windows beyond the calibration samples on which INT8 is compared with FP32."""

_PACKAGES = ("dynamic-tinybert", "openvino", "torch", "transformers", "neural-compressor-pt")


@dataclass(frozen=True)
class Int8Change:
    """What INT8 changed at full length, on windows that it was not calibrated on if the data has so many.

    Attributes:
        mean_difference: Mean absolute difference of the logits.
        max_difference: Largest absolute difference of the logits.
        same_span: Share of windows whose best start and best end are the same.
        windows: Number of windows.
    """

    mean_difference: float
    max_difference: float
    same_span: float
    windows: int


@dataclass(frozen=True)
class ExportReport:
    """What an export made and how it compares with its checkpoint.

    Attributes:
        path: The bundle.
        size: Its size in bytes.
        parity: By length configuration, the FP32 graph against the PyTorch reference.
        int8: INT8 against FP32; None for an FP32 bundle.
    """

    path: Path
    size: int
    parity: Mapping[str, Parity]
    int8: Int8Change | None


def export_model(
    model: str | Path,
    output: str | Path,
    *,
    precision: Literal["fp32", "int8"] = "int8",
    calibration_data: str | Path | None = None,
    num_samples: int = 128,
    length_configs: Mapping[str, LengthConfig | Sequence[float]] | None = None,
    weight_bits: int = 8,
    smooth_alpha: float | None = 0.75,
    force: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ExportReport:
    """Export a question-answering checkpoint to a bundle.

    Args:
        model: Hub id or folder of a ``BertForQuestionAnswering`` checkpoint.
        output: Folder of the bundle; it appears whole or not at all.
        precision: INT8 by Neural Compressor's SmoothQuant and static quantisation, or FP32.
        calibration_data: SQuAD v1.1 JSON whose questions and contexts give the INT8 ranges; answers are not used.
        num_samples: Windows of it to calibrate with.
        length_configs: Length configurations by name; ``full`` is always there.
        weight_bits: 7 for CPUs without VNNI, whose sums of 8-bit products can saturate.
        smooth_alpha: SmoothQuant's strength; None leaves it out.
        force: Replace a bundle that is there.
        revision: Branch, tag or commit on the Hub.
        token: Hub token.
        cache_dir: Where downloads are kept.
        local_files_only: Never touch the network.
        trust_remote_code: Let a checkpoint without tokenizer.json build its tokenizer by code of its own.
        say: Receives a line for each step.

    Raises:
        CheckpointError: The checkpoint is missing or not supported.
        DataError: The calibration data cannot be used.
        InvalidInputError: An argument is outside its range.
        LengthConfigError: A length configuration does not fit the model.
        BundleExistsError: `output` is taken and `force` is not set.
        ParityError: The graph does not compute what the checkpoint does.
        StorageError: A file could not be written.
    """
    if precision not in ("fp32", "int8"):
        raise InvalidInputError(f"precision is {precision!r}; give 'fp32' or 'int8'")
    if weight_bits not in (7, 8):
        raise InvalidInputError(f"weight_bits is {weight_bits!r}; give 8, or 7 for CPUs without VNNI")
    if precision == "int8" and calibration_data is None:
        raise InvalidInputError(
            "INT8 needs questions to take its ranges from: give calibration data, or export to fp32"
        )
    require_int("num_samples", num_samples, 1)
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
        config = checkpoint.model.config
        configs = {"full": LengthConfig.full(config.num_hidden_layers)} | {
            name: c if isinstance(c, LengthConfig) else LengthConfig(tuple(c))
            for name, c in (length_configs or {}).items()
        }
        check_length_configs(configs, config.num_hidden_layers)
        checkpoint.copy_files(folder)
        samples: list[Batch] = []
        if calibration_data is not None:  # read before the long steps, so that bad data is refused at once
            samples = calibration_samples(
                folder / TOKENIZER,
                Path(calibration_data),
                num_samples + HELD_OUT,
                config.max_position_embeddings,
            )
        graph = write_ir(checkpoint.model)
        say("Comparing the FP32 graph with the PyTorch reference")
        parity = _parity(checkpoint, graph, configs)
        change = None
        quantization: dict[str, object] = {"precision": "fp32", "weight_bits": None}
        if precision == "int8":
            fitting, held_out = samples[:num_samples], samples[num_samples:] or samples
            say(f"Calibrating INT8 on {len(fitting)} windows of {calibration_data}")
            quantized = quantize_linears(
                checkpoint.model,
                [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in fitting],
                smooth_alpha=smooth_alpha,
                weight_bits=weight_bits,
                skip={"qa_outputs"},
            )
            plain, graph = graph, write_ir(checkpoint.model, quantized)
            change = _int8_change(plain, graph, held_out, config.num_hidden_layers, config.num_attention_heads)
            quantization = {
                "precision": "int8",
                "weight_bits": weight_bits,
                "method": "Intel Neural Compressor: SmoothQuant, static post-training quantisation",
                "smooth_alpha": smooth_alpha,
                "num_samples": len(fitting),
            }
        say("Writing the bundle")
        with writing(folder):
            ov.save_model(graph, folder / MODEL_XML, compress_to_fp16=False)
            write_manifest(
                folder,
                significance="attention",
                length_configs={name: NamedLengthConfig(c) for name, c in configs.items()},
                quantization=quantization,
                versions={name: version(name) for name in _PACKAGES},
                source={"model": checkpoint.source, "revision": checkpoint.commit},
            )
            size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportReport(Path(output), size, parity, change)


def _parity(checkpoint: Checkpoint, graph: ov.Model, configs: Mapping[str, LengthConfig]) -> dict[str, Parity]:
    config = checkpoint.model.config
    reference = ReferenceModel(checkpoint.model)
    longest = min(384, config.max_position_embeddings)
    mixed = [min(length, longest) for length in (171, 64, 17)]
    batches = [random_batch(lengths, config.vocab_size) for lengths in (mixed[2:], [longest], mixed)]
    return {
        name: check_parity(reference, graph_runner(graph, c, num_heads=config.num_attention_heads), batches, c)
        for name, c in tqdm(configs.items(), desc="Comparing", disable=None)
    }


def _int8_change(
    fp32: ov.Model, int8: ov.Model, windows: Sequence[Batch], num_layers: int, num_heads: int
) -> Int8Change:
    full = LengthConfig.full(num_layers)
    before, after = (graph_runner(graph, full, num_heads=num_heads) for graph in (fp32, int8))
    differences, same = [], 0
    for batch in tqdm(windows, desc="Comparing INT8", disable=None):
        expected, found = before(batch), after(batch)
        names = ("start_logits", "end_logits")
        differences.append(np.concatenate([np.abs(expected[n] - found[n]).ravel() for n in names]))
        same += all(expected[n].argmax() == found[n].argmax() for n in names)
    every = np.concatenate(differences)
    return Int8Change(float(every.mean()), float(every.max()), same / len(windows), len(windows))
