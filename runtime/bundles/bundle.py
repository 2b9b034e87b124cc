"""Bundles: folders that hold an exported model. docs/bundle-format.md describes the format."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleFormatError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig

from .files import (
    CONFIG,
    LISTED_FILES,
    MANIFEST,
    MODEL_XML,
    REQUIRED_FILES,
    SCORERS,
    TOKENIZER,
    check_file,
    read_json,
    size_and_digest,
)
from .manifest import (
    DEFAULT_TASK,
    NO_ANSWER,
    as_json,
    format_version_of,
    get,
    no_answer_threshold_of,
    one_of,
    read_manifest,
    seal,
    task_of,
)
from .model_sizes import model_sizes

Significance = Literal["attention", "learnt"]


@dataclass(frozen=True)
class NamedLengthConfig:
    """A length configuration of a bundle and what was measured with it.

    Attributes:
        config: The keep ratios and thresholds.
        measured: Figures by name, such as `f1` (0 to 100), `macs` or `latency_p50_ms`, and the `data` and
            `cpu` that they belong to; None if nothing was measured.
    """

    config: LengthConfig
    measured: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        path: Its folder.
        significance: What layers select tokens by: "attention" (the attention that a token receives) or "learnt"
            (scorers).
        length_configs: Its length configurations by name; "full" is always one of them.
        default_length_config: Name of the length configuration that is used if a caller gives none.
        quantization: `precision` ("fp32" or "int8"), `weight_bits` (8 or 7, None for fp32) and details of the method.
        versions: Versions of the software that wrote it, for information only.
        source: The checkpoint that it was exported from: `model`, `revision`, `license` and the like.
        shape: Sizes of the encoder.
        num_attention_heads: Heads of each layer.
        max_length: Maximum number of tokens of an input, special tokens included.
        vocab_size: Token ids are below this.
        type_vocab_size: Token type ids are below this.
        no_answer_threshold: A question whose no-answer score (see `no_answer`) is above it has no answer; None if no
            threshold was measured.
        task: Name of the task that the model's head is for.
    """

    path: Path
    significance: Significance
    length_configs: Mapping[str, NamedLengthConfig]
    default_length_config: str
    quantization: Mapping[str, Any]
    versions: Mapping[str, Any]
    source: Mapping[str, Any]
    shape: EncoderShape
    num_attention_heads: int
    max_length: int
    vocab_size: int
    type_vocab_size: int
    no_answer_threshold: float | None = None
    task: str = DEFAULT_TASK

    @property
    def model_xml(self) -> Path:
        """The OpenVINO model."""
        return self.path / MODEL_XML

    @property
    def tokenizer_json(self) -> Path:
        """The tokenizer, as the `tokenizers` library stores it."""
        return self.path / TOKENIZER

    @property
    def scorers(self) -> Path | None:
        """The weights of the significance scorers; None where significance is attention."""
        return self.path / SCORERS if self.significance == "learnt" else None


def open_bundle(path: str | Path) -> Bundle:
    """Check every file of a bundle and read its manifest and sizes.

    Raises:
        BundleNotFoundError: There is no bundle at `path`.
        BundleCorruptError: A file is missing, truncated or edited.
        BundleFormatError: The bundle is of a newer format, or breaks the rules of this one.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        check_file(folder / name, expected)
    return _bundle(folder, manifest)


def write_manifest(
    folder: Path,
    *,
    significance: Significance,
    length_configs: Mapping[str, NamedLengthConfig],
    quantization: Mapping[str, Any],
    versions: Mapping[str, str],
    source: Mapping[str, Any],
    default_length_config: str = "full",
    no_answer_threshold: float | None = None,
    task: str = DEFAULT_TASK,
) -> Bundle:
    """Turn the files in `folder` into a bundle by writing its manifest; call it when all of them are final.

    Args:
        folder: Already contains the other files of the bundle.
        significance: What layers select tokens by; this and the following values are described in `Bundle`.
        length_configs: Length configurations by name; one of them must be "full".
        quantization: Must contain `precision` and `weight_bits`.
        versions: Versions of the software that wrote the files.
        source: Where the model comes from.
        default_length_config: A name in `length_configs`.
        no_answer_threshold: Left out of the manifest if None.
        task: Name of the task. The format version depends on it, because older readers know question answering only.

    Raises:
        BundleCorruptError: A file that the bundle needs is not in `folder`.
        BundleFormatError: A value breaks the rules of the format, or a length configuration does not fit the model.
        InvalidInputError: A value cannot be stored as JSON: it is NaN, infinite or of another type.
    """
    described: dict[str, object] = {
        "format_version": format_version_of(task),
        "task": task,
        "significance": significance,
        "default_length_config": default_length_config,
        "length_configs": {
            name: {
                "keep_ratios": named.config.keep_ratios,
                "thresholds": named.config.thresholds,
                "measured": named.measured,
            }
            for name, named in length_configs.items()
        },
        "quantization": quantization,
        "versions": versions,
        "source": source,
        "files": {name: size_and_digest(folder / name) for name in LISTED_FILES if (folder / name).is_file()},
    }
    if no_answer_threshold is not None:
        described[NO_ANSWER] = no_answer_threshold
    manifest = as_json(described)
    bundle = _bundle(folder, manifest)
    seal(folder, manifest)
    return bundle


def check_length_configs(length_configs: Mapping[str, LengthConfig], num_layers: int) -> None:
    """Check that a bundle of `num_layers` layers can hold these length configurations.

    Raises:
        LengthConfigError: A name is not usable, "full" is missing or drops tokens, or a configuration is for
            another number of layers.
    """
    for name, config in length_configs.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
            raise LengthConfigError(
                f"length configuration {reprlib.repr(name)}: a name is made of a-z, 0-9, '.', '_' and '-', "
                "and starts with a letter or digit"
            )
        try:
            config.check_layers(num_layers)
        except LengthConfigError as error:
            raise LengthConfigError(f"length configuration {reprlib.repr(name)}: {error}") from error
    if "full" not in length_configs:
        raise LengthConfigError(f"there is no length configuration 'full' among {reprlib.repr(sorted(length_configs))}")
    if length_configs["full"] != LengthConfig.full(num_layers):
        raise LengthConfigError(f"'full' must keep all tokens, but is {length_configs['full']}")


def _bundle(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    significance = one_of(manifest, "significance", tuple(REQUIRED_FILES))
    for name in REQUIRED_FILES[significance]:
        if name not in manifest["files"]:
            raise BundleCorruptError(
                f"the bundle {folder} has no {name}, which a bundle with {significance} significance needs; "
                "export or download it again"
            )
    quantization = get(manifest, "quantization", dict)
    precision = one_of(quantization, "precision", ("fp32", "int8"))
    one_of(quantization, "weight_bits", (8, 7) if precision == "int8" else (None,))
    sizes = model_sizes(read_json(folder / CONFIG), folder / CONFIG)
    shape = EncoderShape(sizes["num_hidden_layers"], sizes["hidden_size"], sizes["intermediate_size"])
    length_configs = _length_configs(manifest, shape.num_layers)
    return Bundle(
        path=folder,
        significance=significance,
        length_configs=length_configs,
        default_length_config=one_of(manifest, "default_length_config", tuple(length_configs)),
        quantization=quantization,
        versions=get(manifest, "versions", dict),
        source=get(manifest, "source", dict),
        shape=shape,
        num_attention_heads=sizes["num_attention_heads"],
        max_length=sizes["max_position_embeddings"],
        vocab_size=sizes["vocab_size"],
        type_vocab_size=sizes["type_vocab_size"],
        no_answer_threshold=no_answer_threshold_of(manifest),
        task=task_of(manifest),
    )


def _length_configs(manifest: Mapping[str, Any], num_layers: int) -> dict[str, NamedLengthConfig]:
    entries = get(manifest, "length_configs", dict)
    configs = {}
    for name in entries:
        entry = get(entries, name, dict)
        ratios, thresholds = get(entry, "keep_ratios", list), get(entry, "thresholds", list)
        measured = None if entry.get("measured") is None else get(entry, "measured", dict)
        if len(thresholds) != len(ratios):
            raise BundleFormatError(
                f"{MANIFEST}: length configuration {reprlib.repr(name)} has {len(thresholds)} thresholds for "
                f"{len(ratios)} keep ratios; both need one value per layer"
            )
        try:
            configs[name] = NamedLengthConfig(LengthConfig(tuple(ratios), tuple(thresholds)), measured)
        except LengthConfigError as error:
            raise BundleFormatError(f"{MANIFEST}: length configuration {reprlib.repr(name)}: {error}") from error
    try:
        check_length_configs({name: named.config for name, named in configs.items()}, num_layers)
    except LengthConfigError as error:
        raise BundleFormatError(f"{MANIFEST}: {error}") from error
    return configs
