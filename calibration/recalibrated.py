"""Write a bundle with the model of another one, but with new significance and length configurations."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, write_manifest
from dynamic_tinybert.runtime.bundles.files import SCORERS
from dynamic_tinybert.runtime.bundles.manifest import read_manifest
from dynamic_tinybert.runtime.common.publish import writing

CARD = "README.md"


def write_recalibrated(
    bundle: Bundle,
    folder: Path,
    scorers: Path | None,
    length_configs: Mapping[str, NamedLengthConfig],
    no_answer_threshold: float | None = None,
) -> Bundle:
    """Fill a folder with the files of `bundle` and a new manifest.

    Args:
        bundle: The bundle that the model, its tokenizer and its card come from.
        folder: An empty folder.
        scorers: The file of scorers; None for attention significance.
        length_configs: All length configurations by name.
        no_answer_threshold: The no-answer threshold; None for that of `bundle`, if it has one.

    Raises:
        StorageError: A file could not be written.
    """
    kept = read_manifest(bundle.path)["files"].keys() - {SCORERS}
    with writing(folder):
        for name in (*sorted(kept), CARD):
            if (bundle.path / name).is_file():
                shutil.copyfile(bundle.path / name, folder / name)
        if scorers is not None:
            shutil.copyfile(scorers, folder / SCORERS)
        return write_manifest(
            folder,
            significance="attention" if scorers is None else "learnt",
            length_configs=length_configs,
            quantization=bundle.quantization,
            versions=dict(bundle.versions),
            source=bundle.source,
            task=bundle.task,
            no_answer_threshold=bundle.no_answer_threshold if no_answer_threshold is None else no_answer_threshold,
        )


def replace_length_configs(
    bundle: Bundle, length_configs: Mapping[str, NamedLengthConfig], source: Mapping[str, Any] | None = None
) -> Bundle:
    """Replace the manifest of a bundle in its folder by one with other length configurations.

    Args:
        bundle: The bundle; all else stays as it is.
        length_configs: All length configurations by name.
        source: Where the model comes from; None for what the bundle says.

    Raises:
        StorageError: The file could not be written.
    """
    return write_manifest(
        bundle.path,
        significance=bundle.significance,
        length_configs=length_configs,
        quantization=bundle.quantization,
        versions=dict(bundle.versions),
        source=bundle.source if source is None else source,
        task=bundle.task,
        no_answer_threshold=bundle.no_answer_threshold,
    )
