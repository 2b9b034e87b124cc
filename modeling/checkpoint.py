"""Find, check and load a PyTorch checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from dynamic_tinybert.runtime.bundles.files import CONFIG, OPTIONAL_TOKENIZER_FILES, SCORERS, TOKENIZER
from dynamic_tinybert.runtime.common.errors import CheckpointError
from dynamic_tinybert.runtime.common.publish import writing

from .checkpoint_kind import check_config, no_head
from .checkpoint_model import load_model, load_trained_scorers
from .download import download, has_tensor, names_on_hub
from .foreign import ADAPTER, names_in, refuse_placeholder, what_it_is
from .new_head import NewHead
from .scorer import Scorer
from .tasks.task import ModelTask, encoder_of
from .tokenizer import OneTokenType, load_tokenizer
from .weights import PLACES

if TYPE_CHECKING:  # so that an installation without the extra is told of torch first
    from transformers import BertPreTrainedModel

_COPIED = (CONFIG, TOKENIZER, *OPTIONAL_TOKENIZER_FILES)
_CROSS_ENCODER = "config_sentence_transformers.json"  # where newer sentence-transformers describe a CrossEncoder
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported.

    Attributes:
        task: The task whose head the model has.
        model: The model, FP32, in evaluation mode, with eager attention.
        tokenizer: A tokenizer that gives the same tokens as transformers' AutoTokenizer.
        folder: The folder of its files.
        source: The Hub id or path that it was loaded from.
        commit: The Hub's commit hash; None for a local folder.
        tokenizer_as_filed: Whether `tokenizer` is the folder's tokenizer.json, unchanged.
        notes: Remarks for the user about how the checkpoint was read, one line each.
        scorers: Scorers of learnt significance by layer, if the checkpoint was trained with any.
        activation: The class of what CrossEncoder applies to the logits, if a file beside config.json names it.

    """

    task: ModelTask
    model: BertPreTrainedModel
    tokenizer: Tokenizer
    folder: Path
    source: str
    commit: str | None
    tokenizer_as_filed: bool = True
    notes: tuple[str, ...] = ()
    scorers: Mapping[int, Scorer] = field(default_factory=dict)
    activation: str | None = None

    def copy_files(self, output: Path) -> None:
        """Copy config.json and the tokenizer's files into `output`, byte for byte.

        If the checkpoint has no tokenizer.json, or its other files correct it, `tokenizer` is written in its place. An
        `activation` is put into config.json, where sentence-transformers 4 wrote it, and where bundles have it.

        Raises:
            StorageError: A file cannot be written.

        """
        with writing(output):
            for name in _COPIED:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, output / name)
            if self.activation is not None:
                config = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
                config["sentence_transformers"] = _with_activation(config.get("sentence_transformers"), self.activation)
                (output / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
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
    new_head: NewHead | None = None,
) -> Checkpoint:
    """Load the checkpoint of a task from a local folder or from the Hub.

    A local folder never touches the network. ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured, and nothing
    large is downloaded before config.json says that the checkpoint is supported.

    Args:
        model_id_or_path: A Hub id or a local folder; a `Path` is never interpreted as an id.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; True for the token that is stored on this machine.
        cache_dir: Folder for downloads, instead of the Hub's own cache.
        local_files_only: Use only files that were downloaded before.
        trust_remote_code: Run the checkpoint's own tokenizer code, if it has any. Its modelling code is never run.
        new_head: Take the encoder alone and give it this head, with random weights from PyTorch's generator.

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
        raise CheckpointError(what or f"there is no folder {source}; give an existing folder, or a Hub id as a string")
    else:
        fetch = partial(download, source, token, cache_dir, local_files_only)
        own_code = ("*.py",) if trust_remote_code else ()
        folder = fetch(revision, (*_COPIED, _CROSS_ENCODER, ADAPTER, SCORERS, *own_code))
    commit = None if local else folder.name

    def names() -> list[str]:
        return names_in(folder) if local else names_on_hub(source, folder, commit, token, local_files_only)

    kind = check_config(source, folder, names)
    task = kind.task if new_head is None else new_head.task
    activation = None
    if new_head is None and task.name == "sequence_classification":
        activation = _cross_encoder_activation(source, folder)
    if not local:
        unclear = new_head is None and not kind.names_task
        if unclear and not local_files_only and has_tensor(source, kind.head, commit, token) is False:
            raise no_head(source, kind)
        fetch(commit, _SAFETENSORS)
        if not any(folder.glob("model*.safetensors")):
            fetch(commit, _PICKLED)
    if not any((folder / name).is_file() for name in PLACES):
        raise CheckpointError(f"{source} has no weights, neither {PLACES[0]} nor {PLACES[2]}: {what_it_is(names())}")
    model = load_model(source, folder, kind, new_head)
    if activation is not None:  # so that a checkpoint that is trained from this one has it, too
        own = getattr(model.config, "sentence_transformers", None)
        model.config.sentence_transformers = _with_activation(own, activation)
    loaded = load_tokenizer(
        source,
        folder,
        vocab_size=model.config.vocab_size,
        max_length=model.config.max_position_embeddings,
        trust_remote_code=trust_remote_code,
    )
    if not loaded.token_types:
        embeddings = encoder_of(model).embeddings
        embeddings.token_type_embeddings = OneTokenType(embeddings.token_type_embeddings)
    scorers = load_trained_scorers(source, folder, model)
    return Checkpoint(
        task,
        model,
        loaded.tokenizer,
        folder,
        source,
        commit,
        loaded.as_filed,
        loaded.notes,
        scorers,
        activation,
    )


def _cross_encoder_activation(source: str, folder: Path) -> str | None:
    """The class of a CrossEncoder's activation, where sentence-transformers writes it; None if it does not say.

    Raises:
        CheckpointError: The file cannot be read, or it has a prompt that bundles would leave out.
    """
    path = folder / _CROSS_ENCODER
    if not path.is_file():
        return None
    refuse_placeholder(source, path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds {type(config).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} of {source} cannot be read: {error}; correct it, or remove it if it does not matter"
        ) from error
    if config.get("model_type", "CrossEncoder") != "CrossEncoder":
        return None  # it describes embeddings
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if prompt:
        raise CheckpointError(
            f"{source} puts the prompt {prompt!r:.60} before each query (default_prompt_name {name!r} in {path.name}), "
            "and bundles have no prompts; set default_prompt_name to null there, and put the prompt before the queries "
            "that you rank, train and calibrate with"
        )
    activation = config.get("activation_fn")
    return None if activation is None else str(activation)


def _with_activation(entry: object, activation: str) -> dict[str, object]:
    """The entry `sentence_transformers` of config.json with an activation."""
    return {**(entry if isinstance(entry, dict) else {}), "activation_fn": activation}
