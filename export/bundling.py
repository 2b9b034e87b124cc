"""Write a graph and the manifest into a folder that already holds the checkpoint's files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import openvino as ov

from dynamic_tinybert.modeling.checkpoint import Checkpoint
from dynamic_tinybert.modeling.scorer import save_scorers
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, write_manifest
from dynamic_tinybert.runtime.bundles.files import MODEL_XML, SCORERS
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.length_config import LengthConfig

_PACKAGES = ("dynamic-tinybert", "openvino", "torch", "transformers", "neural-compressor-pt")


def write_bundle(
    folder: Path,
    checkpoint: Checkpoint,
    graph: ov.Model,
    configs: Mapping[str, LengthConfig],
    quantization: Mapping[str, object],
) -> Bundle:
    """Make a bundle of a graph, whose significance is learnt if the checkpoint has scorers, else attention.

    Raises:
        StorageError: A file could not be written.

    """
    with writing(folder):
        ov.save_model(graph, folder / MODEL_XML, compress_to_fp16=False)
        if checkpoint.scorers:
            save_scorers(checkpoint.scorers, folder / SCORERS)
        return write_manifest(
            folder,
            significance="learnt" if checkpoint.scorers else "attention",
            length_configs={name: NamedLengthConfig(config) for name, config in configs.items()},
            quantization=quantization,
            versions={name: version(name) for name in _PACKAGES},
            source={"model": checkpoint.source, "revision": checkpoint.commit},
        )
