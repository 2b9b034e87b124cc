"""Download the needed files of a checkpoint from the Hugging Face Hub."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

from dynamic_tinybert.runtime.common.errors import CheckpointError, StorageError

from .foreign import names_in


def download(
    source: str,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    revision: str | None,
    patterns: tuple[str, ...],
) -> Path:
    """Download the files of these patterns, and give the folder of the snapshot.

    Raises:
        CheckpointError: The Hub does not give them.
        StorageError: They could not be stored.
    """
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
            f"and {constants.ENDPOINT} does not provide it: {error}"
        ) from error
    return Path(folder)


def names_on_hub(
    source: str, folder: Path, commit: str | None, token: str | bool | None, local_files_only: bool
) -> list[str]:
    """Names of a repository's files; if the Hub cannot be reached, those of the downloaded files."""
    if not local_files_only:
        with suppress(ValueError, OSError, RuntimeError, httpx.HTTPError):
            return HfApi(endpoint=constants.ENDPOINT).list_repo_files(source, revision=commit, token=token)
    return names_in(folder)


def has_tensor(source: str, tensor: str, commit: str | None, token: str | bool | None) -> bool | None:
    """Whether a repository's weights have a tensor whose name ends like this, from their header; None if unknown."""
    try:
        names = get_safetensors_metadata(source, revision=commit, token=token).weight_map
    except (NotASafetensorsRepoError, SafetensorsParsingError, ValueError, OSError, RuntimeError, httpx.HTTPError):
        return None
    return any(name.endswith(tensor) for name in names)
