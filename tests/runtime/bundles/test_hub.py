"""Finding a bundle: local folders without the network, Hub ids through a server on loopback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.runtime.bundles import hub as hub_module
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle, write_manifest
from dynamic_tinybert.runtime.bundles.hub import default_bundle, default_reranker, resolve_bundle
from dynamic_tinybert.runtime.common.errors import BundleNotFoundError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.hub_server import HubServer, serve_hub

RESOLVE = """
import json, sys
from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError
from dynamic_tinybert.runtime.bundles.hub import resolve_bundle
for name, options in json.loads(sys.argv[1]):
    try:
        answer = {"path": str(resolve_bundle(name, **options))}
    except DynamicTinyBertError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer | {"hub_imported": "huggingface_hub" in sys.modules}))
"""

Call = tuple[str, dict[str, Any]]
Answer = dict[str, Any]


def write_bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "openvino_model.xml").write_text("<net/>")
    (folder / "openvino_model.bin").write_bytes(bytes(1000))
    write_manifest(
        folder,
        significance="attention",
        length_configs={"full": NamedLengthConfig(LengthConfig.full(2))},
        quantization={"precision": "fp32", "weight_bits": None},
        versions={},
        source={},
    )
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    bundle = write_bundle(tmp_path / "hub/someone/bundle")
    (bundle / ".gitattributes").write_text("*.bin filter=lfs\n")
    (bundle / "pytorch_model.bin").write_bytes(bytes(5000))
    checkpoint = tmp_path / "hub/someone/checkpoint"
    checkpoint.mkdir()
    shutil.copy(bundle / "config.json", checkpoint)
    with serve_hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def resolve_all(hub: HubServer, tmp_path: Path) -> Callable[..., list[Answer]]:
    """`resolve_bundle` in a process of its own: huggingface_hub reads its environment when it is imported."""

    def run(*calls: Call, environment: dict[str, str] | None = None) -> list[Answer]:
        cleared = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        printed = subprocess.check_output(
            [sys.executable, "-c", RESOLVE, json.dumps(calls)],
            env=cleared | settings | (environment or {}),
            cwd=tmp_path,
            text=True,
        )
        return [json.loads(line) for line in printed.splitlines()]

    return run


@pytest.fixture
def resolve(resolve_all: Callable[..., list[Answer]]) -> Callable[..., Answer]:
    return lambda name, **options: resolve_all((name, options))[0]


def test_a_local_folder_never_touches_the_network(
    hub: HubServer, resolve: Callable[..., Answer], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "someone/bundle")
    assert resolve("someone/bundle") == {"path": "someone/bundle", "hub_imported": False}
    assert hub.requests == []


def test_a_bundle_is_downloaded_once_and_only_its_files(
    hub: HubServer, resolve: Callable[..., Answer], tmp_path: Path
) -> None:
    found = Path(resolve("someone/bundle")["path"])
    assert found.is_relative_to(tmp_path / "home")
    assert {path.name for path in found.iterdir()} == {
        "config.json",
        "dynamic_tinybert.json",
        "openvino_model.bin",
        "openvino_model.xml",
        "tokenizer.json",
    }
    assert open_bundle(found).shape.num_layers == 2
    hub.requests.clear()
    assert resolve("someone/bundle")["path"] == str(found)
    assert [request.split()[0] for request in hub.requests] == ["HEAD"]


def test_an_update_of_the_repository_arrives_whole(hub: HubServer, resolve: Callable[..., Answer]) -> None:
    old = Path(resolve("someone/bundle")["path"])
    shutil.rmtree(hub.root / "someone/bundle")
    write_bundle(hub.root / "someone/bundle")
    new = Path(resolve("someone/bundle")["path"])
    assert new != old
    assert new.name == hub.commit("someone/bundle")
    assert open_bundle(new).path == new


def test_a_revision_and_a_cache_are_honoured(hub: HubServer, resolve: Callable[..., Answer], tmp_path: Path) -> None:
    commit = hub.commit("someone/bundle")
    answer = resolve("someone/bundle", revision=commit, cache_dir=str(tmp_path / "cache"))
    assert Path(answer["path"]).is_relative_to(tmp_path / "cache")
    answer = resolve("someone/bundle", revision="no-such-branch")
    assert answer["error"] == "BundleNotFoundError"
    assert "no revision 'no-such-branch'" in answer["message"]


@pytest.mark.parametrize(
    ("environment", "options", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE"),
        ({}, {"local_files_only": True}, "local_files_only"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, "could not be fetched"),  # nothing listens there
    ],
)
def test_offline_the_cache_is_used(
    hub: HubServer,
    resolve_all: Callable[..., list[Answer]],
    tmp_path: Path,
    environment: dict[str, str],
    options: dict[str, Any],
    reason: str,
) -> None:
    def calls(*caches: str, **options: object) -> list[Call]:
        return [("someone/bundle", {"cache_dir": str(tmp_path / cache), **options}) for cache in caches]

    whole, cut_off = resolve_all(*calls("whole", "cut-off"))
    (Path(cut_off["path"]) / "openvino_model.bin").unlink()
    hub.requests.clear()
    again, *refused = resolve_all(*calls("whole", "cut-off", "empty", **options), environment=environment)
    assert hub.requests == []
    assert again["path"] == whole["path"]
    for answer in refused:
        assert answer["error"] == "BundleNotFoundError"
        assert "not completely in the cache" in answer["message"]
        assert reason in answer["message"]


def test_a_private_repository_needs_its_token(hub: HubServer, resolve: Callable[..., Answer]) -> None:
    hub.tokens["someone/bundle"] = "hf_secret"
    answer = resolve("someone/bundle")
    assert answer["error"] == "BundleNotFoundError"
    assert "pass a token" in answer["message"]
    assert "path" in resolve("someone/bundle", token="hf_secret")


def test_a_stored_token_that_is_not_there_is_missed(resolve: Callable[..., Answer]) -> None:
    answer = resolve("someone/bundle", token=True)
    assert answer["error"] == "BundleNotFoundError"
    assert "no token found" in answer["message"]


def test_an_unknown_repository_is_named(resolve: Callable[..., Answer]) -> None:
    answer = resolve("someone/typo")
    assert answer["error"] == "BundleNotFoundError"
    assert "there is no folder 'someone/typo' here, and the Hub shows no repository" in answer["message"]


def test_a_checkpoint_is_not_a_bundle(resolve: Callable[..., Answer]) -> None:
    answer = resolve("someone/checkpoint")
    assert answer["error"] == "BundleNotFoundError"
    assert "dynamic-tinybert export someone/checkpoint OUTPUT" in answer["message"]
    assert "dynamic_tinybert.json" in answer["message"]


def test_an_incomplete_repository_is_refused(hub: HubServer, resolve: Callable[..., Answer]) -> None:
    (hub.root / "someone/bundle/openvino_model.bin").unlink()
    answer = resolve("someone/bundle")
    assert answer["error"] == "BundleNotFoundError"
    assert "openvino_model.bin" in answer["message"]


def test_a_newer_format_is_refused_before_its_weights_are_downloaded(
    hub: HubServer, resolve: Callable[..., Answer]
) -> None:
    (hub.root / "someone/bundle/dynamic_tinybert.json").write_text('{"format_version": 3}')
    assert resolve("someone/bundle")["error"] == "BundleFormatError"
    assert all("dynamic_tinybert.json" in request for request in hub.requests)


def test_a_cache_that_cannot_be_written_is_a_storage_error(resolve: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = resolve("someone/bundle", cache_dir=str(tmp_path / "file"))
    assert answer["error"] == "StorageError"


@pytest.mark.parametrize("text", ["", "./bundle", "../bundle", "/no/such/bundle", "a/b/c", "bundle/", "~/x", "a b"])
def test_what_is_no_hub_id_is_refused_as_a_missing_folder(text: str) -> None:
    with pytest.raises(BundleNotFoundError, match="neither an existing folder nor a Hub id"):
        resolve_bundle(text)


def test_a_path_is_never_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="there is no folder someone/bundle"):
        resolve_bundle(Path("someone/bundle"))
    (tmp_path / "file").touch()
    with pytest.raises(BundleNotFoundError, match="is a file"):
        resolve_bundle(tmp_path / "file")


def test_the_default_bundle_is_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "__file__", str(tmp_path / "bundles" / "hub.py"))
    with pytest.raises(BundleNotFoundError, match=r"no embedded bundle in .*; reinstall the package"):
        default_bundle()
    write_bundle(tmp_path / "default_bundle")
    assert default_bundle() == tmp_path / "default_bundle"
    with pytest.raises(
        BundleNotFoundError, match=r"no embedded bundle in .*default_reranker; give the bundle of a reranker"
    ):
        default_reranker()
    write_bundle(tmp_path / "default_reranker")
    assert default_reranker() == tmp_path / "default_reranker"


@pytest.mark.parametrize(
    ("proxy", "cause"), [("socks5://127.0.0.1:1", "socksio"), ("nonsense://x", "Unknown scheme for proxy URL")]
)
def test_a_proxy_that_cannot_be_used_is_named(resolve_all: Callable[..., list[Answer]], proxy: str, cause: str) -> None:
    if cause == "socksio" and find_spec("socksio"):
        pytest.skip("socksio is installed")
    (answer,) = resolve_all(("someone/bundle", {}), environment={"ALL_PROXY": proxy})
    assert answer["error"] == "BundleNotFoundError"
    assert f"through the proxy of ALL_PROXY ({cause}" in answer["message"].replace("Using SOCKS proxy, but the '", "")
    assert ("pip install 'httpx[socks]'" in answer["message"]) == proxy.startswith("socks")


def test_an_address_of_the_hub_that_is_none_is_not_blamed_on_a_proxy(resolve_all: Callable[..., list[Answer]]) -> None:
    (answer,) = resolve_all(("someone/bundle", {}), environment={"HF_ENDPOINT": "http://127.0.0.1:port"})
    assert answer["error"] == "BundleNotFoundError"
    assert "could not be fetched (" in answer["message"]
    assert "proxy" not in answer["message"]
