"""The list of systems to compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.length_config import EncoderShape


@dataclass(frozen=True)
class System:
    """A system, and how a worker loads it.

    Attributes:
        name: The name in tables.
        loader: The module of `benchmarks.peers` that loads it.
        options: The arguments of the loader's `load`, besides `threads`.
        shape: The shape of its encoder.
        pad_to: Number of tokens that inputs are padded to; 0 for no padding.
        int8: Whether its matmuls with weights are INT8.
        cached: Whether it can cache compiled graphs for its next start (`load` then takes `cache`).
        scored: Whether its answers are scored; a model with random weights is only timed.
        length_config: For our runtime, the name of the length configuration.
        environment: Environment variables of its process.
    """

    name: str
    loader: str
    options: Mapping[str, object]
    shape: EncoderShape
    pad_to: int = 0
    int8: bool = False
    cached: bool = False
    scored: bool = True
    length_config: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def ours(name: str, bundle: Bundle, config: str, *, pad_to: int = 0) -> System:
    options = {"bundle": str(bundle.path), "config": config}
    int8 = bundle.quantization["precision"] == "int8"
    return System(name, "ours", options, bundle.shape, pad_to, int8, cached=True, length_config=config)


def peers(checkpoint: Path, shape: EncoderShape, prepared: Path, window: int) -> list[System]:
    """Every peer of a checkpoint.

    Args:
        checkpoint: The folder of the model that all share.
        shape: The shape of its encoder.
        prepared: The folder that was given to `prepare`.
        window: Largest number of tokens of a window, to which the padded systems pad.
    """
    base = EncoderShape(num_layers=12, hidden_size=768, intermediate_size=3072)
    pytorch = {"checkpoint": str(checkpoint)}
    systems = [
        System("BERT-base-sized PyTorch FP32, padded", "pytorch", {"checkpoint": None}, base, window, scored=False),
        System("PyTorch FP32, padded", "pytorch", pytorch, shape, window),
        System("PyTorch FP32", "pytorch", pytorch, shape),
    ]
    for precision, label in ((None, ""), ("f32", ", f32 hint")):
        for kind in ("fp32", "int8"):
            model = {"model": str(prepared / f"optimum-intel-{kind}"), "precision": precision}
            name = f"optimum-intel {kind.upper()}{label}"
            systems.append(System(name, "optimum_intel", model, shape, int8=kind == "int8", cached=True))
    for kind in ("FP32", "FP32 optimized", "INT8 dynamic", "INT8 dynamic optimized", "INT8 static"):
        file = prepared / f"onnxruntime-{kind.lower().replace(' ', '-')}.onnx"
        systems.append(System(f"ONNX Runtime {kind}", "onnx_runtime", {"model": str(file)}, shape, int8="INT8" in kind))
    return systems
