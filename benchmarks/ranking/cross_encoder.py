"""sentence-transformers' CrossEncoder, with the backends and the INT8 models that its documentation advises for CPUs.

See "Speeding up Inference" for cross-encoders at https://sbert.net/docs/cross_encoder/usage/efficiency.html. This runs
in an environment of its own: its ONNX backend needs an older release of transformers than we do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .model import Rank

ONNX, ONNX_O2, ONNX_INT8 = "onnx/model.onnx", "onnx/model_O2.onnx", "onnx/model_qint8_{isa}.onnx"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"


def prepare(checkpoint: str, pairs: str, folder: str, isa: str, num_samples: int) -> None:
    """Write a copy of a checkpoint with ONNX and OpenVINO models beside it.

    Args:
        checkpoint: The folder of a BertForSequenceClassification with one output.
        pairs: A folder with train.jsonl, whose column "pair" has a query and a document each: what INT8 in OpenVINO is
            calibrated on.
        folder: The folder to write.
        isa: The instruction set for which ONNX Runtime's INT8 is made, by the name that sentence-transformers takes.
        num_samples: Number of pairs to calibrate with.
    """
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import (
        CrossEncoder,
        export_dynamic_quantized_onnx_model,
        export_optimized_onnx_model,
        export_static_quantized_openvino_model,
    )

    onnx = CrossEncoder(checkpoint, backend="onnx", local_files_only=True, model_kwargs={"export": True})
    onnx.save_pretrained(folder)
    export_optimized_onnx_model(onnx, "O2", folder)
    export_dynamic_quantized_onnx_model(onnx, isa, folder)
    openvino = CrossEncoder(checkpoint, backend="openvino", local_files_only=True, model_kwargs={"export": True})
    openvino.save_pretrained(folder)
    data = {"dataset_name": pairs, "dataset_config_name": "default", "dataset_split": "train", "column_name": "pair"}
    export_static_quantized_openvino_model(openvino, OVQuantizationConfig(num_samples=num_samples), folder, **data)


def load(folder: str, backend: str, file: str | None, batch_size: int, threads: int) -> Rank:
    """A backend ("torch", "onnx", "openvino") and one of the files that `prepare` wrote; None for PyTorch's."""
    from sentence_transformers import CrossEncoder

    options: dict[str, Any] = {"file_name": file} if file else {}
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    elif backend == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        options |= {"provider": "CPUExecutionProvider", "session_options": session}
    else:
        options["ov_config"] = {"INFERENCE_NUM_THREADS": threads}
    model = CrossEncoder(folder, backend=backend, device="cpu", local_files_only=True, model_kwargs=options)

    def rank(query: str, documents: Sequence[str], top: int) -> list[int]:
        found = model.rank(query, list(documents), top_k=top, batch_size=batch_size, show_progress_bar=False)
        return [int(document["corpus_id"]) for document in found]

    return rank


def versions(file: str) -> None:
    """Write the versions of this environment to a file."""
    from importlib.metadata import version

    names = ("sentence-transformers", "transformers", "torch", "optimum-intel", "openvino", "nncf", "onnxruntime")
    Path(file).write_text(json.dumps({name: version(name) for name in names}))
