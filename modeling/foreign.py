"""Recognise folders that are not PyTorch checkpoints and files that are placeholders, and say what to do with them."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from dynamic_tinybert.runtime.bundles.files import MANIFEST
from dynamic_tinybert.runtime.common.errors import CheckpointError

ADAPTER = "adapter_config.json"
MERGE_FIRST = (
    "merge it into its base model first: peft.AutoPeftModelForQuestionAnswering.from_pretrained(FOLDER)"
    ".merge_and_unload().save_pretrained(NEW_FOLDER), with the tokenizer saved beside it"
)

_CONVERT = (
    "load it where that library is installed (transformers 4) and save it as PyTorch weights with save_pretrained"
)
# The first pattern that matches a file decides.
_KINDS = (
    (ADAPTER, f"it is a LoRA or other PEFT adapter, a part of a model; {MERGE_FIRST}"),
    (MANIFEST, "it is a bundle already; use it as it is, or export the checkpoint that it was made from"),
    (
        "config_sentence_transformers.json",
        "it is a sentence-transformers model, which makes embeddings and has no question-answering head",
    ),
    ("modules.json", "it is a sentence-transformers model, which makes embeddings and has no question-answering head"),
    ("tf_model*.h5", f"its weights are TensorFlow's (tf_model.h5, from_tf=True); {_CONVERT}"),
    ("*.ckpt.index", "its weights are those of TensorFlow 1; convert them with transformers 4 (from_tf=True)"),
    ("flax_model*.msgpack", f"its weights are Flax's (flax_model.msgpack, from_flax=True); {_CONVERT}"),
    ("*.onnx", "it holds an ONNX model, whose weights cannot be recovered; export its checkpoint"),
    ("openvino_model*.xml", "it holds an OpenVINO model; export the checkpoint that it was made from"),
    ("*.gguf", "it holds a GGUF model; export the checkpoint that it was made from"),
)
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")


def names_in(folder: Path) -> list[str]:
    """Paths of the entries of a folder and of its direct subfolders, relative to the folder, sorted."""
    return sorted(str(file.relative_to(folder)) for depth in ("*", "*/*") for file in folder.glob(depth))


def what_it_is(names: Collection[str]) -> str:
    """Describe what a folder with these files is if it is not a checkpoint, and what the user can do."""
    for pattern, kind in _KINDS:
        if any(fnmatch(name.rpartition("/")[2], pattern) for name in names):
            return kind
    inner = sorted({name.partition("/")[0] for name in names if fnmatch(name, "*/config.json")})
    if inner:
        return f"there are checkpoints in its subfolders ({', '.join(inner[:5])}): give the path of one of them"
    weights = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in _WEIGHTS))
    if weights:
        return (
            f"it has {', '.join(weights[:5])}; if those are the model's weights, save them as model.safetensors or, "
            "with torch.save(model.state_dict()), as pytorch_model.bin"
        )
    return f"it has {', '.join(sorted(names)[:5])}" if names else "it is empty"


def refuse_placeholder(source: str, file: Path) -> None:
    """Refuse a file that is only a placeholder: a Git LFS pointer, a web page or an empty file.

    Raises:
        CheckpointError: The file is a placeholder, or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(100).lstrip()
    except OSError as error:
        raise CheckpointError(f"{file.name} of {source} cannot be read: {error}") from error
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise CheckpointError(
            f"{file.name} of {source} is a Git LFS pointer, not the file itself; run git lfs pull in the repository, "
            "or download the file"
        )
    if start[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{file.name} of {source} is a web page, not the file itself; download the file")
    if not start:
        raise CheckpointError(f"{file.name} of {source} is empty; download or save it again")
