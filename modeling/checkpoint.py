"""Find, check and load a PyTorch question-answering checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForQuestionAnswering
from transformers.utils import logging as transformers_logging

from dynamic_tinybert.runtime.bundles.files import CONFIG, OPTIONAL_TOKENIZER_FILES, SCORERS, TOKENIZER
from dynamic_tinybert.runtime.common.errors import BundleCorruptError, CheckpointError
from dynamic_tinybert.runtime.common.publish import writing

from .download import download, has_tensor, names_on_hub
from .foreign import ADAPTER, names_in, refuse_placeholder, what_it_is
from .scorer import Scorer, load_scorers
from .tokenizer import OneTokenType, load_tokenizer
from .weights import HEAD, PLACES, read_weights

_COPIED = (CONFIG, TOKENIZER, *OPTIONAL_TOKENIZER_FILES)
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")

_SUPPORTED = (
    "supported are BertForQuestionAnswering checkpoints of any depth and width "
    "(BERT, TinyBERT, MiniLM, Dynamic-TinyBERT)"
)
_QUESTION_ANSWERING = "BertForQuestionAnswering"
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
        tokenizer: What gives the tokens that transformers' AutoTokenizer does.
        folder: Where its files are.
        source: The Hub id or path that it was asked for by.
        commit: The Hub's commit hash; None for a local folder.
        tokenizer_as_filed: Whether `tokenizer` is the folder's tokenizer.json as it is.
        notes: What its owner should know of how it was read, a line each.
        scorers: Scorers of learnt significance by layer, where the checkpoint was trained with some.

    """

    model: BertForQuestionAnswering
    tokenizer: Tokenizer
    folder: Path
    source: str
    commit: str | None
    tokenizer_as_filed: bool = True
    notes: tuple[str, ...] = ()
    scorers: Mapping[int, Scorer] = field(default_factory=dict)

    def copy_files(self, output: Path) -> None:
        """Copy config.json and the tokenizer's files into `output`, their bytes untouched.

        A tokenizer.json that the checkpoint lacks, or that other files of it correct, is written.

        Raises:
            StorageError: A file cannot be written.

        """
        with writing(output):
            for name in _COPIED:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, output / name)
            if not self.tokenizer_as_filed:
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
        trust_remote_code: Let a checkpoint build its tokenizer by code of its own. Modelling code of its own is
            never run.

    Raises:
        CheckpointError: There is no such checkpoint, it cannot be read, or it is not supported.
        StorageError: A download could not be stored.

    """
    source = str(model_id_or_path)
    local = source != "" and Path(source).is_dir()
    if local:
        folder = Path(source)
    elif isinstance(model_id_or_path, Path) or Path(source).is_file():
        what = f"{source} is a file; give the folder that it is in" if Path(source).is_file() else ""
        raise CheckpointError(what or f"there is no folder {source}; give a folder, or a Hub id as text")
    else:
        fetch = partial(download, source, token, cache_dir, local_files_only)
        own_code = ("*.py",) if trust_remote_code else ()
        folder = fetch(revision, (*_COPIED, ADAPTER, SCORERS, *own_code))
    commit = None if local else folder.name

    def names() -> list[str]:
        return names_in(folder) if local else names_on_hub(source, folder, commit, token, local_files_only)

    kind = _check_config(source, folder, names)
    if not local:
        if not kind.startswith(_QUESTION_ANSWERING) and not local_files_only:
            head = has_tensor(source, HEAD, commit, token)
            if head is False:
                raise CheckpointError(_no_head(source, kind))
        fetch(commit, _SAFETENSORS)
        if not any(folder.glob("model*.safetensors")):
            fetch(commit, _PICKLED)
    if not any((folder / name).is_file() for name in PLACES):
        raise CheckpointError(f"{source} has no weights, neither {PLACES[0]} nor {PLACES[2]}: {what_it_is(names())}")
    model = _load_model(source, folder, kind)
    loaded = load_tokenizer(
        source,
        folder,
        vocab_size=model.config.vocab_size,
        max_length=model.config.max_position_embeddings,
        trust_remote_code=trust_remote_code,
    )
    if not loaded.token_types:
        embeddings = model.bert.embeddings
        embeddings.token_type_embeddings = OneTokenType(embeddings.token_type_embeddings)
    scorers = _load_scorers(source, folder, model)
    return Checkpoint(model, loaded.tokenizer, folder, source, commit, loaded.as_filed, loaded.notes, scorers)


def _no_head(source: str, kind: str) -> str:
    return (
        f"{source} is a {kind} and has no question-answering head of two outputs among its weights ({HEAD}, "
        f"qa_outputs.bias); fine-tune it for question answering first; {_SUPPORTED}"
    )


def _check_config(source: str, folder: Path, names: Callable[[], Collection[str]]) -> str:
    """The model's class by config.json, which must be of a kind that the graph computes."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{source} has no readable {CONFIG}: {what_it_is(names())}; {_SUPPORTED}")
    refuse_placeholder(source, path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        # Where config.json names none, the weights decide.
        architectures = config.get("architectures") or [_QUESTION_ANSWERING]
        kind = architectures if isinstance(architectures, str) else ", ".join(architectures)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{source} has no readable {CONFIG}: {error}; {_SUPPORTED}") from error
    for key, required in _REQUIRED.items():
        if (value := config.get(key, required)) != required:
            raise CheckpointError(
                f"{source} ({kind}) has {key} {value!r}, and only {required!r} is supported; {_SUPPORTED}"
            )
    if (types := config.get("type_vocab_size", 2)) in (0, 1):
        raise CheckpointError(
            f"{source} has type_vocab_size {types}, and 2 are needed to tell questions (type 0) from contexts "
            f"(type 1); {_SUPPORTED}"
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{source} is quantised already (quantization_config in {CONFIG}); bring the checkpoint in float32, "
            "float16 or bfloat16 that it was made from"
        )
    if (folder / ADAPTER).is_file():
        raise CheckpointError(f"{source} cannot be exported: {what_it_is([ADAPTER])}; or remove its files ({ADAPTER})")
    return kind


def _load_model(source: str, folder: Path, kind: str) -> BertForQuestionAnswering:
    weights = read_weights(source, folder)
    if HEAD not in weights:
        raise CheckpointError(_no_head(source, kind))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # its own report of what does not fit
    try:
        loaded: tuple[BertForQuestionAnswering, dict[str, Any]]
        loaded = BertForQuestionAnswering.from_pretrained(  # type: ignore[assignment]
            None,
            config=BertConfig.from_pretrained(folder, local_files_only=True),
            state_dict=weights,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below
        )
    except Exception as error:  # transformers and torch share no narrower base
        raise CheckpointError(f"cannot load the model of {source}: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, report = loaded
    missing = sorted(report["missing_keys"])
    sizes = sorted(report["mismatched_keys"])
    headless = any(name.startswith("qa_outputs.") for name in missing)
    if headless or model.config.num_labels != 2 or weights[HEAD].shape[0] != 2:
        raise CheckpointError(_no_head(source, kind))
    surplus = sorted(name for name in report["unexpected_keys"] if "encoder.layer." in name)
    if missing or surplus:
        raise CheckpointError(
            f"the weights of {source} do not fit its {CONFIG}: missing {missing[:3]}, unknown {surplus[:3]}"
        )
    if sizes:
        name, found, expected = sizes[0]
        raise CheckpointError(
            f"the weights of {source} do not fit its {CONFIG}: {name} is {list(found)}, and should be {list(expected)}"
        )
    for name, tensor in model.state_dict().items():
        if not (finite := tensor.isfinite()).all():
            raise CheckpointError(
                f"{name} of {source} holds NaN or infinite numbers, {int((~finite).sum())} of {tensor.numel()}: its "
                "training diverged, or it was saved in too small a precision; bring an earlier or a sound checkpoint"
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
