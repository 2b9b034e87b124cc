"""Bundles: folders that hold an exported model. docs/bundle-format.md describes the format."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleFormatError,
    BundleNotFoundError,
    InvalidInputError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig

from .model_sizes import model_sizes

FORMAT_VERSION = 2
"""The newest format that is read, and written where a reader of the one before would go wrong."""

QUESTION_ANSWERING = "question_answering"
"""The task of bundles of format 1, whether they name it or not."""

MANIFEST = "dynamic_tinybert.json"
CONFIG = "config.json"
MODEL_XML = "openvino_model.xml"
MODEL_BIN = "openvino_model.bin"
SCORERS = "significance.safetensors"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
OPTIONAL_TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    VOCABULARY,
)

Significance = Literal["attention", "learnt"]

_REQUIRED_FILES: dict[str, tuple[str, ...]] = {
    "attention": (CONFIG, TOKENIZER, MODEL_XML, MODEL_BIN),
    "learnt": (CONFIG, TOKENIZER, MODEL_XML, MODEL_BIN, SCORERS),
}
_FILES = (*_REQUIRED_FILES["learnt"], *OPTIONAL_TOKENIZER_FILES)

_LARGEST_JSON = 16 * 2**20  # bytes

_NO_ANSWER = "no_answer_threshold"
_LARGEST_THRESHOLD = 1_000_000  # logits are far smaller

T = TypeVar("T")


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
        significance: By what its layers select tokens.
        length_configs: Its length configurations by name; "full" is always one of them.
        default_length_config: The name of the one to use when a caller names none.
        quantization: `precision` ("fp32" or "int8"), `weight_bits` (8 or 7, None for fp32) and how it was done.
        versions: Versions of the software that wrote it, for information only.
        source: The checkpoint that it was exported from: `model`, `revision`, `license` and the like.
        shape: Sizes of the encoder.
        num_attention_heads: Heads of each layer.
        max_length: Most tokens of one input, special tokens included.
        vocab_size: Token ids are below this.
        type_vocab_size: Token type ids are below this.
        no_answer_threshold: A score of no answer (`no_answer`) above it means that there is none; None if it
            was not measured.
        task: The name of the task that its head is for.
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
    task: str = QUESTION_ANSWERING

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
    """Check every file of a bundle and read what it says about itself.

    Raises:
        BundleNotFoundError: There is no bundle at `path`.
        BundleCorruptError: A file is missing, truncated or edited.
        BundleFormatError: The bundle is of a newer format, or breaks the rules of this one.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        _check_file(folder / name, expected)
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
    task: str = QUESTION_ANSWERING,
) -> Bundle:
    """Make a bundle of the files in `folder`: write its manifest, once all of them are final.

    Args:
        folder: Holds the other files of the bundle already.
        significance: See `Bundle`, here and below.
        length_configs: Must hold "full".
        quantization: Must hold `precision` and `weight_bits`.
        versions: Versions of the software that wrote the files.
        source: Where the model comes from.
        default_length_config: A name of `length_configs`.
        no_answer_threshold: Left out of the manifest if None.
        task: Decides the version of the format, as old readers know question answering only.

    Raises:
        BundleCorruptError: A file that the bundle needs is not in `folder`.
        BundleFormatError: A value breaks the rules of the format; a length configuration does not fit.
        InvalidInputError: A value is not JSON: NaN, infinite or of another type.
    """
    described: dict[str, object] = {
        "format_version": 1 if task == QUESTION_ANSWERING else FORMAT_VERSION,
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
        "files": {name: _size_and_digest(folder / name) for name in _FILES if (folder / name).is_file()},
    }
    if no_answer_threshold is not None:
        described[_NO_ANSWER] = no_answer_threshold
    try:
        manifest: dict[str, Any] = json.loads(json.dumps(described, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{MANIFEST} takes plain JSON values only: {error}") from error
    bundle = _bundle(folder, manifest)
    manifest["manifest_sha256"] = _digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return bundle


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle and check its format's version, its digest and its list of files.

    Raises:
        BundleNotFoundError: There is no manifest in `folder`.
        BundleCorruptError: It is truncated or edited.
        BundleFormatError: It is of a newer format, or no manifest of ours.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleNotFoundError(_why_no_bundle(folder))
    manifest = _read_json(file)
    version = _get(manifest, "format_version", int)
    if version > FORMAT_VERSION:
        raise BundleFormatError(
            f"{folder} is a bundle of format {version}, and this release reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install --upgrade dynamic-tinybert"
        )
    if version < 1:
        raise BundleFormatError(f"{file}: format_version {version} does not exist; export the model again")
    expected, found = _get(manifest, "manifest_sha256", str), _digest_of(manifest)
    if found != expected:
        raise BundleCorruptError(
            f"{file} was edited: the SHA-256 of its contents is {found}, and {expected} stands in it; "
            "export or download the bundle again"
        )
    files = _get(manifest, "files", dict)
    for name in files:
        if name not in _FILES:
            raise BundleFormatError(f"{file}: {reprlib.repr(name)} in its files is not one of {', '.join(_FILES)}")
        entry = _get(files, name, dict)
        _get(entry, "size", int)
        _get(entry, "sha256", str)
    return manifest


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
        raise LengthConfigError(f"'full' must keep all tokens, and is {length_configs['full']}")


def _bundle(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    significance = _one_of(manifest, "significance", tuple(_REQUIRED_FILES))
    for name in _REQUIRED_FILES[significance]:
        if name not in manifest["files"]:
            raise BundleCorruptError(
                f"the bundle {folder} has no {name}, which one with {significance} significance needs; "
                "export or download it again"
            )
    quantization = _get(manifest, "quantization", dict)
    precision = _one_of(quantization, "precision", ("fp32", "int8"))
    _one_of(quantization, "weight_bits", (8, 7) if precision == "int8" else (None,))
    sizes = model_sizes(_read_json(folder / CONFIG), folder / CONFIG)
    shape = EncoderShape(sizes["num_hidden_layers"], sizes["hidden_size"], sizes["intermediate_size"])
    length_configs = _length_configs(manifest, shape.num_layers)
    return Bundle(
        path=folder,
        significance=significance,
        length_configs=length_configs,
        default_length_config=_one_of(manifest, "default_length_config", tuple(length_configs)),
        quantization=quantization,
        versions=_get(manifest, "versions", dict),
        source=_get(manifest, "source", dict),
        shape=shape,
        num_attention_heads=sizes["num_attention_heads"],
        max_length=sizes["max_position_embeddings"],
        vocab_size=sizes["vocab_size"],
        type_vocab_size=sizes["type_vocab_size"],
        no_answer_threshold=_no_answer_threshold(manifest),
        task=_task(manifest),
    )


def _task(manifest: Mapping[str, Any]) -> str:
    if manifest["format_version"] == 1:
        return QUESTION_ANSWERING if "task" not in manifest else str(_one_of(manifest, "task", (QUESTION_ANSWERING,)))
    task = _get(manifest, "task", str)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", task):
        raise BundleFormatError(
            f"{MANIFEST}: task {reprlib.repr(task)}: a name is made of a-z, 0-9 and '_', and starts with a letter"
        )
    return task


def _no_answer_threshold(manifest: Mapping[str, Any]) -> float | None:
    value = manifest.get(_NO_ANSWER)
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) <= _LARGEST_THRESHOLD:
        raise BundleFormatError(
            f"{MANIFEST}: {_NO_ANSWER} must be null or a number between -1e6 and 1e6, not {reprlib.repr(value)}"
        )
    return float(value)


def _length_configs(manifest: Mapping[str, Any], num_layers: int) -> dict[str, NamedLengthConfig]:
    entries = _get(manifest, "length_configs", dict)
    configs = {}
    for name in entries:
        entry = _get(entries, name, dict)
        ratios, thresholds = _get(entry, "keep_ratios", list), _get(entry, "thresholds", list)
        measured = None if entry.get("measured") is None else _get(entry, "measured", dict)
        if len(thresholds) != len(ratios):
            raise BundleFormatError(
                f"{MANIFEST}: length configuration {reprlib.repr(name)} has {len(thresholds)} thresholds for "
                f"{len(ratios)} keep ratios, and needs one for each layer"
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


def _why_no_bundle(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}, so no bundle either"
    missing = f"{folder} is not a bundle, for it has no {MANIFEST}"
    if (folder / MODEL_XML).exists():
        return f"{missing}; make one of the checkpoint of this model: dynamic-tinybert export MODEL OUTPUT"
    if (folder / CONFIG).exists():
        return f"{missing}; if it is a checkpoint, make one of it: dynamic-tinybert export {folder} OUTPUT"
    return missing


def _size_and_digest(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _check_file(file: Path, expected: Mapping[str, Any]) -> None:
    try:
        size = file.stat().st_size
        if size != expected["size"]:
            raise BundleCorruptError(
                f"{file} has {size} bytes instead of {expected['size']}: truncated or edited; "
                "export or download the bundle again"
            )
        digest = _size_and_digest(file)["sha256"]
    except OSError as error:
        raise BundleCorruptError(
            f"{file} is listed in {MANIFEST} and cannot be read: {error.strerror}; export or download the bundle again"
        ) from error
    if digest != expected["sha256"]:
        raise BundleCorruptError(
            f"{file} was edited: its SHA-256 is {digest} instead of {expected['sha256']}; "
            "export or download the bundle again"
        )


def _digest_of(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > _LARGEST_JSON:
            raise BundleFormatError(f"{file} has {size} bytes, and can have at most {_LARGEST_JSON}")
        data = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleCorruptError(
            f"{file} cannot be read as JSON: {error}; export or download the bundle again"
        ) from error
    if not isinstance(data, dict):
        raise BundleFormatError(f"{file} holds {type(data).__name__}, not a JSON object")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _get(data: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = data.get(key)
    if type(value) is not kind:  # not isinstance: True is no int here
        raise BundleFormatError(f"{MANIFEST}: {key} must be a {kind.__name__}, not {reprlib.repr(value)}")
    return value


def _one_of(data: Mapping[str, Any], key: str, values: tuple[Any, ...]) -> Any:  # noqa: ANN401
    if key not in data or data[key] not in values:
        raise BundleFormatError(
            f"{MANIFEST}: {key} must be one of {reprlib.repr(values)}, not {reprlib.repr(data.get(key))}"
        )
    return data[key]
