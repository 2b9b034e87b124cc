"""Write bundles from a checkpoint and a graph: the exported one, and temporary ones for measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

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
    """Write a graph and the manifest into a folder that already holds the checkpoint's files.

    The significance of the bundle is learnt if the checkpoint has scorers, else attention.

    Args:
        folder: Holds what `Checkpoint.copy_files` wrote.
        checkpoint: The checkpoint that the graph was made from.
        graph: The graph, in FP32 or INT8.
        configs: Length configurations by name, "full" among them.
        quantization: The entry of the manifest; holds at least `precision` and `weight_bits`.

    Raises:
        StorageError: A file could not be written.

    """
    with writing(folder):
        ov.save_model(graph, folder / MODEL_XML, compress_to_fp16=False)
        if checkpoint.scorers:
            save_scorers(checkpoint.scorers, folder / SCORERS)
        return write_manifest(
            folder,
            task=checkpoint.task.name,
            significance="learnt" if checkpoint.scorers else "attention",
            length_configs={name: NamedLengthConfig(config) for name, config in configs.items()},
            quantization=quantization,
            versions={name: version(name) for name in _PACKAGES},
            source={"model": checkpoint.source, "revision": checkpoint.commit},
        )


@contextmanager
def temporary_bundle(
    parent: Path, checkpoint: Checkpoint, graph: ov.Model, *, weight_bits: int | None
) -> Iterator[Bundle]:
    """Write a bundle with the configuration "full" only; it is deleted when the context ends.

    Args:
        parent: An existing folder to create the bundle in.
        checkpoint: The checkpoint that the graph was made from.
        graph: The graph, in FP32 or INT8.
        weight_bits: Bits of the weights of an INT8 graph; None for FP32.

    Raises:
        StorageError: The bundle could not be written.

    """
    full = {"full": LengthConfig.full(checkpoint.model.config.num_hidden_layers)}
    quantization = {"precision": "int8" if weight_bits else "fp32", "weight_bits": weight_bits}
    with TemporaryDirectory(dir=parent) as place:
        checkpoint.copy_files(Path(place))
        yield write_bundle(Path(place), checkpoint, graph, full, quantization)
