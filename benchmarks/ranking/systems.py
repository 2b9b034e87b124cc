"""The rerankers to compare, and how they are prepared."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynamic_tinybert.runtime.bundles.bundle import Bundle

from .cross_encoder import ONNX_INT8, OPENVINO_INT8
from .onnx_sorted import DYNAMIC, DYNAMIC_O2
from benchmarks.peers.process import WorkerProcess, python_path

WORKER = "benchmarks.ranking.worker"
DONE = "prepared.json"


@dataclass(frozen=True)
class System:
    """A reranker, and how a worker loads it.

    Attributes:
        name: The name in tables.
        loader: The module of this folder that loads it.
        options: The arguments of the loader's `load`, besides `threads`.
        int8: Whether its matmuls with weights are INT8.
        python: The Python of its environment; None for the one that runs.
    """

    name: str
    loader: str
    options: Mapping[str, object] = field(default_factory=dict)
    int8: bool = True
    python: str | None = None

    def start(self, threads: int) -> WorkerProcess:
        options = json.dumps({**self.options, "threads": threads})
        python = {"python": self.python} if self.python else {}
        return WorkerProcess(WORKER, self.loader, "load", options, **python)


def ours(
    bundle: Bundle, names: Iterable[str], rank_options: Mapping[str, object] | None = None, suffix: str = ""
) -> list[System]:
    """A bundle at some of its length configurations.

    Args:
        bundle: The bundle.
        names: Names of length configurations.
        rank_options: Further options of `Reranker.rank`.
        suffix: What the names of the systems end with.
    """
    int8 = bundle.quantization["precision"] == "int8"
    options = {"bundle": str(bundle.path), "options": rank_options or {}}
    return [System(f"ours {name}{suffix}", "ours", {**options, "config": name}, int8) for name in names]


def peers(checkpoint: Path, prepared: Path, isa: str, max_length: int, python: str, batch_size: int) -> list[System]:
    """Every peer of a checkpoint; `prepared` is the folder that `prepare_peers` wrote."""

    def cross_encoder(name: str, folder: Path, backend: str, file: str | None) -> System:
        options = {"folder": str(folder.resolve()), "backend": backend, "file": file, "batch_size": batch_size}
        return System(f"CrossEncoder, {name}", "cross_encoder", options, file is not None, python)

    def sorted_onnx(name: str, file: str) -> System:
        options = {"folder": str(prepared.resolve()), "file": file, "batch_size": batch_size, "max_length": max_length}
        return System(f"ONNX Runtime INT8, sorted{name}", "onnx_sorted", options, True, python)

    return [
        cross_encoder("torch FP32", checkpoint, "torch", None),
        cross_encoder("onnx INT8", prepared, "onnx", ONNX_INT8.format(isa=isa)),
        cross_encoder("openvino INT8", prepared, "openvino", OPENVINO_INT8),
        sorted_onnx("", DYNAMIC),
        sorted_onnx(", optimized", DYNAMIC_O2),
    ]


def prepare_peers(
    checkpoint: Path, pairs: Iterable[tuple[str, str]], folder: Path, isa: str, num_samples: int, python: str
) -> dict[str, str]:
    """Write the peers' models, unless `folder` has those of this checkpoint; returns the versions of their packages.

    Args:
        checkpoint: The folder of the model that all share.
        pairs: Queries with documents, to calibrate INT8 in OpenVINO on.
        folder: Where to write.
        isa: What INT8 in ONNX Runtime is made for: "avx2", "avx512" or "avx512_vnni".
        num_samples: Number of pairs to calibrate with.
        python: The Python of the peers' environment.
    """
    record: dict[str, object] = {"checkpoint": str(checkpoint.resolve()), "isa": isa, "num_samples": num_samples}
    done = folder / DONE
    if done.exists() and json.loads(done.read_text())["made of"] != record:
        raise FileExistsError(f"{folder} has the peers' models of {json.loads(done.read_text())['made of']}")
    if not done.exists():
        data = folder / "pairs"
        data.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"pair": list(pair)}) for pair in pairs)
        (data / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        places = {
            "checkpoint": str(checkpoint.resolve()),
            "pairs": str(data.resolve()),
            "folder": str(folder.resolve()),
        }
        _call(python, "cross_encoder", "prepare", **places, isa=isa, num_samples=num_samples)
        _call(python, "onnx_sorted", "prepare", folder=str(folder.resolve()))
        versions = folder / "versions.json"
        _call(python, "cross_encoder", "versions", file=str(versions.resolve()))
        done.write_text(json.dumps({"made of": record, "versions": json.loads(versions.read_text())}))
    found: dict[str, str] = json.loads(done.read_text())["versions"]
    return found


def _call(python: str, loader: str, function: str, **options: object) -> None:
    command = [python, "-m", WORKER, loader, function, json.dumps(options)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": python_path(), "HF_HUB_OFFLINE": "1"})
