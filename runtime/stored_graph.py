"""Store the graph of one length configuration for other programs that run OpenVINO models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from . import cpu
from .bundles.files import MODEL_XML, size_and_digest
from .common.errors import InferenceError
from .common.publish import publishing, writing
from .encoder import extension_library
from .encoder.compilation import LENGTH_MULTIPLE, float_precision, is_fused
from .encoder.compiled import Arrays, CompiledGraph
from .encoder.gate import gate
from .encoder.patterns import Product
from .length_config import LengthConfig
from .loading import with_defaults
from .model import LengthAdaptiveModel
from .tasks import task_named

STORED_GRAPH = "dynamic_tinybert_graph.json"
"""The file beside a stored graph that describes it."""

_LENGTH = 64
"""Tokens of the inputs with which a stored graph is compared with the model."""


def store_graph(
    model: LengthAdaptiveModel,
    output: str | Path,
    *,
    length_config: str | LengthConfig | Sequence[float] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the graph of a length configuration, selection included, as OpenVINO IR, which any OpenVINO program reads.

    The folder appears only when it is complete, and when the graph in it, read back, has given the same bits as the
    model. Where the graph has ops of the C++ extension, a program must load that first (`Core.add_extension`). The
    graph packs its weights for the CPU that it runs on, at the first request.

    Args:
        model: The model.
        output: The folder to write: `openvino_model.xml`, `openvino_model.bin`, and what is returned as
            `dynamic_tinybert_graph.json`.
        length_config: Name in the bundle, configuration, or one keep ratio per layer; None for the bundle's default.
        force: Replace a folder that this function wrote.

    Returns:
        What the graph was made from, and what it needs.

    Raises:
        LengthConfigError: The length configuration is unknown or does not fit the model.
        BundleExistsError: `output` exists, and `force` is not set or it holds something else.
        InferenceError: OpenVINO cannot read or run what was written, or it computes something else.
        StorageError: The folder could not be written.
    """
    model.resolve(length_config)  # before anything is written
    with publishing(Path(output), force=force, mark=STORED_GRAPH, kind="a stored graph") as folder:
        graph = model.specialised_graph(length_config, portable=True)
        file = folder / MODEL_XML
        with writing(file), gate:
            ov.save_model(graph, file, compress_to_fp16=False)
        _compare(model, length_config, file)
        described = _described(model, length_config, graph)
        described["files"] = {path.name: size_and_digest(path) for path in (file, file.with_suffix(".bin"))}
        with writing(folder / STORED_GRAPH):
            text = json.dumps(described, indent=1, ensure_ascii=False)
            (folder / STORED_GRAPH).write_text(text + "\n", encoding="utf-8")
    return described


def _described(
    model: LengthAdaptiveModel, length_config: str | LengthConfig | Sequence[float] | None, graph: ov.Model
) -> dict[str, Any]:
    bundle, config = model.bundle, model.resolve(length_config)
    name = bundle.default_length_config if length_config is None else length_config
    hint = "INFERENCE_PRECISION_HINT"
    our_ops = sorted({node.get_type_name() for node in graph.get_ops() if _is_ours(node)})
    return {
        "bundle": {"path": str(bundle.path.absolute()), "source": dict(bundle.source), "task": bundle.task},
        "length_config": {
            "name": name if isinstance(name, str) else None,
            "keep_ratios": config.keep_ratios,
            "thresholds": config.thresholds,
        },
        "inputs": [node.get_any_name() for node in graph.inputs],
        "outputs": [node.get_any_name() for node in graph.outputs],
        "ops_of_the_extension": our_ops,
        "extension": {
            "path": str(extension_library.extension_path()),
            "openvino": ov.__version__.partition("-")[0],  # the loader has checked that both are the same
        },
        "written_on": {
            "cpu": cpu.name(),
            "kernels": extension_library.isa(),
            "fused": is_fused(bundle),
            "dynamic-tinybert": version("dynamic-tinybert"),
        },
        "exact_only_with_vnni": bundle.quantization.get("weight_bits") == 8 and _has_integer_products(graph),
        "ov_config": {hint: _defaults(model)[hint]},
    }


def _defaults(model: LengthAdaptiveModel) -> Mapping[str, object]:
    """The properties with which a model of this bundle is compiled by default on this CPU."""
    return with_defaults(None, precision=float_precision(model.bundle, task_named(model.bundle.task)))


def _is_ours(node: ov.Node) -> bool:
    return str(node.get_type_info().version_id) == "dynamic_tinybert"


def _has_integer_products(graph: ov.Model) -> bool:
    """Whether OpenVINO's own nodes multiply 8-bit numbers: their sums saturate on CPUs without VNNI."""
    return any((product := Product.of(node)) is not None and product.scale is not None for node in graph.get_ops())


def _compare(
    model: LengthAdaptiveModel, length_config: str | LengthConfig | Sequence[float] | None, file: Path
) -> None:
    """Check that a stored graph, read back, gives the bits of the model's own graph."""
    core, properties = extension_library.core(), _defaults(model)

    def run(graph: ov.Model | Path) -> Arrays:
        try:
            compiled = CompiledGraph(
                lambda: core.compile_model(
                    core.read_model(graph) if isinstance(graph, Path) else graph, "CPU", properties
                )
            )
        except RuntimeError as error:
            raise InferenceError(f"OpenVINO {ov.__version__} cannot compile {graph}: {error}") from error
        return compiled.infer(_sample(model))

    expected, found = run(model.specialised_graph(length_config)), run(file)
    different = sorted(expected.keys() ^ found.keys())
    if not different:
        different = [name for name in expected if not np.array_equal(expected[name], found[name], equal_nan=True)]
    if different:
        raise InferenceError(
            f"the stored graph gives other outputs than the model: {', '.join(different)}; "
            "please report this with what `dynamic-tinybert info` prints"
        )


def _sample(model: LengthAdaptiveModel) -> Mapping[str, npt.NDArray[np.int64]]:
    """Two sequences of random tokens, the second one shorter, whose first eighth is the question."""
    bundle = model.bundle
    length = max(1, min(_LENGTH, bundle.max_length // LENGTH_MULTIPLE * LENGTH_MULTIPLE))
    positions = np.arange(length)
    real = positions < np.array([[length], [max(1, length // 2)]])
    types = np.minimum(positions >= length // 8, bundle.type_vocab_size - 1)
    return {
        "input_ids": np.where(real, np.random.default_rng(0).integers(0, bundle.vocab_size, (2, length)), 0),
        "attention_mask": real.astype(np.int64),
        "token_type_ids": np.where(real, types, 0).astype(np.int64),
    }
