"""Find, check and load a PyTorch question-answering checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import torch
from huggingface_hub import constants, snapshot_download
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertForQuestionAnswering

from dynamic_tinybert.calibration.scorer import Scorer, load_scorers
from dynamic_tinybert.runtime.bundle import CONFIG, OPTIONAL_TOKENIZER_FILES, SCORERS, TOKENIZER, VOCABULARY
from dynamic_tinybert.runtime.errors import BundleCorruptError, CheckpointError, StorageError
from dynamic_tinybert.runtime.publish import writing

_COPIED = (CONFIG, TOKENIZER, *OPTIONAL_TOKENIZER_FILES)
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")

_SUPPORTED = (
    "supported are BertForQuestionAnswering checkpoints of any depth and width "
    "(BERT, TinyBERT, MiniLM, Dynamic-TinyBERT)"
)
# A key that config.json leaves out has this value in transformers too.
_REQUIRED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


@dataclass(frozen=True)
class Checkpoint:
    """A question-answering checkpoint that can be exported.

    Attributes:
        model: The model, FP32, in evaluation mode, with eager attention.
        tokenizer: Its tokenizer.
        folder: Where its files are.
        source: The Hub id or path that it was asked for by.
        commit: The Hub's commit hash; None for a local folder.
        scorers: Scorers of learnt significance by layer, where the checkpoint was trained with some.

    """

    model: BertForQuestionAnswering
    tokenizer: Tokenizer
    folder: Path
    source: str
    commit: str | None
    scorers: Mapping[int, Scorer] = field(default_factory=dict)

    def copy_files(self, output: Path) -> None:
        """Copy config.json and the tokenizer's files into `output`, their bytes untouched.

        A tokenizer.json that the checkpoint lacks is written from its vocabulary.

        Raises:
            StorageError: A file cannot be written.

        """
        with writing(output):
            for name in _COPIED:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, output / name)
            if not (self.folder / TOKENIZER).is_file():
                (output / TOKENIZER).write_text(self.tokenizer.to_str(), encoding="utf-8")


def load_checkpoint(
    model_id_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Load a question-answering checkpoint from a local folder or from the Hub.

    A local folder never touches the network. ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured, and nothing
    large is downloaded before config.json says that the checkpoint is supported.

    Args:
        model_id_or_path: A Hub id or a local folder; a `Path` is never taken for an id.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; True for the one that is stored on this machine.
        cache_dir: Where downloads are kept, instead of the Hub's own cache.
        local_files_only: Use only what was downloaded before.
        trust_remote_code: Let a checkpoint without tokenizer.json build its tokenizer by code of its own.
            Modelling code of its own is never run.

    Raises:
        CheckpointError: There is no such checkpoint, it cannot be read, or it is not supported.
        StorageError: A download could not be stored.

    """
    source = str(model_id_or_path)
    local = source != "" and Path(source).is_dir()
    if local:
        folder = Path(source)
    elif isinstance(model_id_or_path, Path):
        raise CheckpointError(f"there is no folder {source}; give a folder, or a Hub id as text")
    else:
        download = partial(_download, source, token, cache_dir, local_files_only)
        own_code = ("*.py",) if trust_remote_code else ()
        folder = download(revision, (*_COPIED, SCORERS, *own_code))
    _check_config(source, folder / CONFIG)
    commit = None if local else folder.name
    if not local:
        download(commit, _SAFETENSORS)
        if not any(folder.glob("model*.safetensors")):
            download(commit, _PICKLED)
    model = _load_model(source, folder)
    tokenizer = _load_tokenizer(source, folder, trust_remote_code)
    last = max(tokenizer.get_vocab().values(), default=0)
    if last >= model.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer of {source} gives token ids up to {last}, but its model knows only "
            f"{model.config.vocab_size}; use the tokenizer that the model was trained with"
        )
    return Checkpoint(model, tokenizer, folder, source, commit, _load_scorers(source, folder, model))


def _download(
    source: str,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    revision: str | None,
    patterns: tuple[str, ...],
) -> Path:
    try:
        folder = snapshot_download(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(patterns),
        )
    except (ValueError, OSError, RuntimeError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        if getattr(error, "errno", None):  # of the operating system: huggingface_hub's own OSErrors have none
            raise StorageError(f"{source} could not be stored in the Hub's cache: {error}") from error
        raise CheckpointError(
            f"cannot get the checkpoint {source!r} (revision {revision or 'main'}): it is no local folder, "
            f"and {constants.ENDPOINT} does not give it: {error}"
        ) from error
    return Path(folder)


def _check_config(source: str, path: Path) -> None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        # Where config.json names none, the weights decide.
        architectures = config.get("architectures") or ["BertForQuestionAnswering"]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{source} has no readable {CONFIG}: {error}; {_SUPPORTED}") from error
    for key, required in _REQUIRED.items():
        if (value := config.get(key, required)) != required:
            raise CheckpointError(
                f"{source} ({', '.join(architectures)}) has {key} {value!r}, and only {required!r} is "
                f"supported; {_SUPPORTED}"
            )
    if (types := config.get("type_vocab_size", 2)) in (0, 1):
        raise CheckpointError(
            f"{source} has type_vocab_size {types}, and 2 are needed to tell questions (type 0) from contexts "
            f"(type 1); {_SUPPORTED}"
        )
    if "BertForQuestionAnswering" not in architectures:
        raise CheckpointError(
            f"{source} is a {', '.join(architectures)} and has no question-answering head; fine-tune it for "
            f"question answering first; {_SUPPORTED}"
        )


def _load_model(source: str, folder: Path) -> BertForQuestionAnswering:
    try:
        loaded: tuple[BertForQuestionAnswering, dict[str, set[str]]]
        loaded = BertForQuestionAnswering.from_pretrained(  # type: ignore[assignment]
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, torch, pickle and safetensors share no narrower base
        raise CheckpointError(f"cannot load the model of {source}: {error}") from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if any(name.startswith("qa_outputs.") for name in missing) or model.config.num_labels != 2:
        raise CheckpointError(
            f"{source} has no question-answering head of two outputs among its weights; fine-tune it for "
            f"question answering first; {_SUPPORTED}"
        )
    surplus = sorted(name for name in report["unexpected_keys"] if name.startswith("bert.encoder."))
    if missing or surplus:
        raise CheckpointError(
            f"the weights of {source} do not fit its {CONFIG}: missing {missing[:3]}, unknown {surplus[:3]}"
        )
    return model


def _load_scorers(source: str, folder: Path, model: BertForQuestionAnswering) -> dict[int, Scorer]:
    if not (folder / SCORERS).is_file():
        return {}
    try:
        scorers = load_scorers(folder / SCORERS)
    except BundleCorruptError as error:
        raise CheckpointError(f"cannot load the scorers of {source}: {error}") from error
    config = model.config
    for layer, scorer in scorers.items():
        width = scorer.match_token.in_features
        if layer >= config.num_hidden_layers or width != config.hidden_size:
            raise CheckpointError(
                f"{SCORERS} of {source} has a scorer of layer {layer} for states of {width}, but the model has "
                f"{config.num_hidden_layers} layers of {config.hidden_size}; remove the file, or bring its own model"
            )
    return scorers


def _load_tokenizer(source: str, folder: Path, trust_remote_code: bool) -> Tokenizer:
    fast = (folder / TOKENIZER).is_file()
    if not fast and not (folder / VOCABULARY).is_file():  # AutoTokenizer would make up an empty vocabulary
        raise CheckpointError(f"{source} has no tokenizer: neither {TOKENIZER} nor {VOCABULARY}")
    try:
        if fast:
            return Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        return tokenizer.backend_tokenizer
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(
            f"cannot load the tokenizer of {source}: {error}; give it a valid {TOKENIZER}, or "
            "trust_remote_code where the tokenizer has code of its own"
        ) from error
