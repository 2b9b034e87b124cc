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
    """Download the files of a repository that match some patterns.

    Args:
        source: Hub id of the repository.
        token: Access token of the Hub; True for the token that is stored on this machine.
        cache_dir: Folder for downloads, instead of the Hub's own cache.
        local_files_only: Use only files that were downloaded before.
        revision: Branch, tag or commit; None for the main branch.
        patterns: Glob patterns of file names.

    Returns:
        The folder of the snapshot, whose name is the commit hash.

    Raises:
        CheckpointError: The Hub does not provide the repository or the revision.
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
        if getattr(error, "errno", None):  # from the operating system; huggingface_hub's own OSErrors have no errno
            raise StorageError(f"{source} could not be stored in the Hub's cache: {error}") from error
        raise CheckpointError(
            f"cannot get the checkpoint {source!r} (revision {revision or 'main'}): it is not a local folder, "
            f"and {constants.ENDPOINT} does not provide it: {error}"
        ) from error
    return Path(folder)


def names_on_hub(
    source: str, folder: Path, commit: str | None, token: str | bool | None, local_files_only: bool
) -> list[str]:
    """Names of a repository's files on the Hub; of the downloaded files alone if the Hub cannot be reached."""
    if not local_files_only:
        with suppress(ValueError, OSError, RuntimeError, httpx.HTTPError):
            return HfApi(endpoint=constants.ENDPOINT).list_repo_files(source, revision=commit, token=token)
    return names_in(folder)


def has_tensor(source: str, tensor: str, commit: str | None, token: str | bool | None) -> bool | None:
    """Whether a tensor's name in the headers of a repository's weights ends with `tensor`; None if unknown."""
    try:
        names = get_safetensors_metadata(source, revision=commit, token=token).weight_map
    except (NotASafetensorsRepoError, SafetensorsParsingError, ValueError, OSError, RuntimeError, httpx.HTTPError):
        return None
    return any(name.endswith(tensor) for name in names)
