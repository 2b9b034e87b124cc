"""The bundles that are damaged and asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from dynamic_tinybert.export import export_model
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.modeling.scorer import ContextRule
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle, write_manifest
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.answerable import write_checkpoint, write_questions
from support.tiny import tiny_bert, write_tiny_bundle

TOLERANCES = {"attention": 1e-4, "learnt": 1e-4, "int8-attention": 1e-4, "int8-learnt": 1e-4, "embedded": 1e-4}
"""By how much the logits of a row may differ from those of the row alone."""

_BY_RATIOS = {"half": LengthConfig((0.9, 0.5, 0.5, 0.3))}
_BY_THRESHOLDS = {"half": LengthConfig((1, 0.6, 0.6, 0.6), (None, 0.4, 0.5, None))}


def write_samples(folder: Path) -> dict[str, Path]:
    """Tiny bundles of four layers by name: FP32 by attention and by scorers, INT8 by attention and by scorers."""
    bert, scorers = tiny_bert(num_hidden_layers=4, max_position_embeddings=128), scorers_of_samples()
    by_name = {
        "attention": write_tiny_bundle(folder / "attention", bert, _BY_RATIOS),
        "learnt": write_tiny_bundle(folder / "learnt", bert, _BY_THRESHOLDS, scorers),
    }
    checkpoint = write_checkpoint(folder / "checkpoint", num_hidden_layers=4, max_position_embeddings=128)
    questions = write_questions(folder / "questions.json", count=8)
    exported = folder / "exported"
    export_model(checkpoint, exported, calibration_data=questions, validation=questions, num_samples=4, tune=False)
    quantization = open_bundle(exported).quantization
    for name, configs in (("int8-attention", _BY_RATIOS), ("int8-learnt", _BY_THRESHOLDS)):
        by_name[name] = Path(shutil.copytree(exported, folder / name))
        if configs is _BY_THRESHOLDS:
            save_scorers(scorers, by_name[name] / "significance.safetensors")
        named = {"full": LengthConfig.full(4), **configs}
        write_manifest(
            by_name[name],
            significance="learnt" if configs is _BY_THRESHOLDS else "attention",
            length_configs={key: NamedLengthConfig(config) for key, config in named.items()},
            quantization=quantization,
            versions={},
            source={"model": "tiny"},
        )
    return by_name


def scorers_of_samples() -> dict[int, Scorer | ContextRule]:
    """Scorers of layers 0 and 1 and the rule in layer 2, always the same."""
    torch.manual_seed(0)
    scorers: dict[int, Scorer | ContextRule] = {
        layer: Scorer(32, width=16, kernel_sizes=(3, 5), heads=2, head_size=8) for layer in (0, 1)
    }
    for scorer in scorers.values():
        with torch.no_grad():  # tokens differ by more than rounding
            for parameter in scorer.parameters():
                parameter.mul_(2)
    return {**scorers, 2: ContextRule()}
