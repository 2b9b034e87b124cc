"""Find a bundle: a local folder, a repository on the Hugging Face Hub, or the one in the package."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from dynamic_tinybert.runtime.common.errors import BundleNotFoundError, StorageError

from .files import MANIFEST
from .manifest import read_manifest

_PROXIES = ("all_proxy", "https_proxy", "http_proxy")


def default_bundle() -> Path:
    """Find the bundle for question answering that is shipped inside the package.

    Raises:
        BundleNotFoundError: This installation contains no bundle.
    """
    return _embedded("default_bundle", "reinstall the package, or give a bundle")


def default_reranker() -> Path:
    """Find the bundle for ranking that is shipped inside the package.

    Raises:
        BundleNotFoundError: This installation contains no reranker.
    """
    return _embedded("default_reranker", "give the bundle of a reranker")


def _embedded(name: str, advice: str) -> Path:
    folder = Path(__file__).parents[1] / name
    if not (folder / MANIFEST).is_file():
        raise BundleNotFoundError(f"this installation has no embedded bundle in {folder}; {advice}")
    return folder


def resolve_bundle(
    id_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find the folder of a bundle, and download it if necessary. A local folder never touches the network.

    Args:
        id_or_path: A folder, or the id of a Hub repository, `name` or `owner/name`.
        revision: Branch, tag or commit of the repository.
        token: Access token of the Hub; True takes the stored one, False none.
        cache_dir: Where downloads are kept instead of huggingface_hub's own cache.
        local_files_only: Use what is in the cache and do not connect.

    Raises:
        BundleNotFoundError: Neither a folder nor a bundle on the Hub has this name, or the Hub cannot be reached and
            the bundle is not in the cache.
        BundleCorruptError, BundleFormatError: The downloaded manifest is not usable.
        StorageError: The download could not be stored.
    """
    folder = Path(id_or_path)
    if id_or_path and folder.is_dir():
        return folder
    if folder.is_file():
        raise BundleNotFoundError(f"{folder} is a file, but a bundle is a folder")
    if isinstance(id_or_path, Path):
        raise BundleNotFoundError(f"there is no folder {folder}")
    return _from_hub(id_or_path, revision, token, cache_dir, local_files_only)


def _from_hub(
    repo_id: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> Path:
    from httpx import HTTPError, InvalidURL  # imported late: takes 0.25 s, and local bundles do not need it
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    fetch = partial(hf_hub_download, repo_id, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    try:
        folder = Path(fetch(MANIFEST, revision=revision)).parent  # the folder is named after the commit
        for name in read_manifest(folder)["files"]:
            fetch(name, revision=folder.name)  # all files of one commit; cached files need no request
    except HFValidationError as error:
        raise BundleNotFoundError(f"{repo_id!r} is neither an existing folder nor a Hub id") from error
    except RepositoryNotFoundError as error:
        raise BundleNotFoundError(
            f"there is no folder {repo_id!r} here, and the Hub shows no repository of that name; "
            "check the name, and for a private or gated repository pass a token or log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise BundleNotFoundError(f"the Hub's {repo_id} has no revision {revision!r}") from error
    except RemoteEntryNotFoundError as error:
        raise BundleNotFoundError(
            f"the Hub's {repo_id} is not a complete bundle ({str(error).splitlines()[-1]}); "
            f"if it is a checkpoint, make a bundle from it: dynamic-tinybert export {repo_id} OUTPUT"
        ) from error
    except (OSError, HTTPError, RuntimeError) as error:
        if getattr(error, "errno", None):  # from the operating system: huggingface_hub's own OSErrors have no errno
            raise StorageError(f"{repo_id} could not be stored in the Hub's cache: {error}") from error
        # RuntimeError: huggingface_hub 1.21 retries a refused connection with a client that it has closed
        raise BundleNotFoundError(
            f"there is no folder {repo_id!r} here, and the Hub's {repo_id} could not be fetched "
            f"({error.__cause__ or error}) and is not completely in the cache; connect to the Hub once, or give a "
            "local bundle"
        ) from error
    except (ImportError, InvalidURL, ValueError) as error:  # httpx refuses a proxy that the environment names
        where = f"there is no folder {repo_id!r} here, and the Hub's {repo_id}"
        proxies = {name: value for name, value in os.environ.items() if name.lower() in _PROXIES and value}
        if not proxies:
            raise BundleNotFoundError(
                f"{where} could not be fetched ({error}); connect to the Hub once, or give a local bundle"
            ) from error
        socks = any("socks" in value.lower() for value in proxies.values())
        raise BundleNotFoundError(
            f"{where} cannot be fetched through the proxy of {', '.join(proxies)} ({error}); "
            + ("for a SOCKS proxy run: pip install 'httpx[socks]', else " if socks else "")
            + "correct or unset the variable, or give a local bundle"
        ) from error
    return folder
