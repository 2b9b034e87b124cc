"""Quantise a checkpoint to INT8, with the default setting or with the best one that tuning finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from torch import nn

from dynamic_tinybert.calibration.int8.linears import (
    ChannelExtremes,
    QuantizedLinear,
    channel_extremes,
    quantize_linears,
)
from dynamic_tinybert.calibration.int8.tuning import Int8Change, Int8Setting, Step, chosen, tune
from dynamic_tinybert.modeling.checkpoint import Checkpoint
from dynamic_tinybert.runtime import LengthAdaptiveModel

from .bundling import temporary_bundle
from .ir import write_ir
from .tasks.samples import HeldOut, Samples

MORE_SAMPLES = 4
"""The last step of tuning calibrates on this many times as many windows as the first."""


@dataclass(frozen=True)
class Quantization:
    """An INT8 graph and how it was found.

    Attributes:
        graph: The graph.
        steps: The settings that were tried; `calibration.int8.tuning.chosen` returns the one that the graph has.
        record: The entry `quantization` of the manifest.
    """

    graph: ov.Model
    steps: list[Step]
    record: dict[str, object]


def quantize(
    checkpoint: Checkpoint,
    plain: ov.Model,
    samples: Samples[HeldOut],
    *,
    num_samples: int,
    tuned: bool,
    weight_bits: int,
    scratch: Path,
    say: Callable[[str], None],
) -> Quantization:
    """Quantise a checkpoint, and compare the result with FP32 on held-out examples.

    Args:
        checkpoint: The FP32 model.
        plain: Its FP32 graph.
        samples: Inputs to calibrate on, and held-out examples.
        num_samples: Number of inputs to calibrate with; tuning also tries all inputs.
        tuned: Whether to search for the best setting, or to take the default one.
        weight_bits: 8, or 7 for other runtimes on CPUs without VNNI.
        scratch: An existing folder for temporary files.
        say: Called with the lines of a table, one for each setting that was tried.

    """
    model, head, held_out = checkpoint.model, checkpoint.task.head_linears, samples.held_out
    batches = [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in samples.calibration]

    def outputs(of: ov.Model, examples: HeldOut, bits: int | None) -> Sequence[Any]:
        with temporary_bundle(scratch, checkpoint, of, weight_bits=bits) as bundle:
            return examples.run(LengthAdaptiveModel(bundle))

    before = outputs(plain, held_out, None)

    @cache
    def extremes(count: int) -> ChannelExtremes:
        return channel_extremes(model, batches[:count], skip=head)

    @lru_cache(maxsize=1)  # settings that differ only in `fp32_linears` come one after another
    def layers(setting: Int8Setting) -> dict[str, QuantizedLinear]:
        return quantize_linears(
            model,
            batches[: setting.num_samples],
            smooth_alpha=setting.smooth_alpha,
            ranges=setting.ranges,
            weight_bits=weight_bits,
            skip=head,
            extremes=extremes(setting.num_samples),
        )

    def graph(setting: Int8Setting) -> ov.Model:
        quantized = layers(replace(setting, fp32_linears=()))
        return write_ir(model, {name: layer for name, layer in quantized.items() if name not in setting.fp32_linears})

    def trial(setting: Int8Setting, limit: int | None = None) -> Int8Change:
        examples = held_out.first(limit)
        return examples.compare(before[:limit], outputs(graph(setting), examples, weight_bits))

    say(_HEADER)
    num_samples = min(num_samples, len(batches))
    if tuned:
        linears = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
        steps = tune(
            trial,
            num_samples=num_samples,
            more_samples=len(batches),
            macs={name: model.get_parameter(f"{name}.weight").numel() for name in linears if name not in head},
            report=lambda step: say(_row(step)),
        )
    else:
        setting = Int8Setting(num_samples=num_samples)
        steps = [Step(setting, trial(setting), gain=None, fp32_share=0)]
        say(_row(steps[0]))
    best = chosen(steps)
    record = {
        "precision": "int8",
        "weight_bits": weight_bits,
        "method": "Intel Neural Compressor: SmoothQuant, static post-training quantisation",
        **asdict(best.setting),
        "held_out": held_out.name,
        "steps": [{**asdict(step), "kept": step.kept} for step in steps],
    }
    return Quantization(graph(best.setting), steps, record)


_HEADER = (
    "  SmoothQuant  ranges          windows  moved %   gain  same answer %  logits      F1 against FP32\n"
    "  (*: best so far; moved: probability on other tokens or classes than in FP32; logits: mean difference)"
)


def _row(step: Step) -> str:
    setting, change = step.setting, step.change
    strength = "none" if setting.smooth_alpha is None else f"{setting.smooth_alpha:g}"
    gain = "" if step.gain is None else f"{step.gain:+.2f}"
    f1 = "-" if change.f1 is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*change.f1)
    fp32 = f"  {setting.fp32_linears[-1]} in FP32: {step.fp32_share:.1%} of MACs" if setting.fp32_linears else ""
    return (
        f"{'*' if step.kept else ' '} {strength:11}  {setting.ranges:14}{setting.num_samples:9}{change.moved:9.2f}"
        f"{gain:>7}{change.same_answers:15.1f}{change.logit_error:8.3f}  {f1:>20}{fp32}"
    )
