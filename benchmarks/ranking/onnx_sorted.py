"""ONNX Runtime alone, in INT8: pairs sorted by length run in batches that are padded to their longest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .cross_encoder import ONNX, ONNX_O2
from .model import Rank

DYNAMIC, DYNAMIC_O2 = "onnxruntime-int8-dynamic.onnx", "onnxruntime-int8-dynamic-O2.onnx"


def prepare(folder: str) -> None:
    """Quantise the ONNX models that `cross_encoder.prepare` wrote, per channel; `folder` is theirs."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The optimiser's own ops have no shape inference, which quantisation would ask for the type of their outputs.
    types = {"DefaultTensorType": TensorProto.FLOAT}
    for source, target in ((ONNX, DYNAMIC), (ONNX_O2, DYNAMIC_O2)):
        quantize_dynamic(
            Path(folder, source),
            Path(folder, target),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options=types,
        )


def load(folder: str, file: str, batch_size: int, max_length: int, threads: int) -> Rank:
    """One of the models that `prepare` wrote, with the tokenizer of its folder."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(Path(folder, file)), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.no_padding()

    def rank(query: str, documents: Sequence[str], top: int) -> list[int]:
        encodings = tokenizer.encode_batch([(query, document) for document in documents])
        by_length = sorted(range(len(encodings)), key=lambda i: len(encodings[i]))
        scores = np.empty(len(encodings), np.float32)
        for first in range(0, len(by_length), batch_size):
            batch = by_length[first : first + batch_size]
            longest = len(encodings[batch[-1]])
            inputs = {name: np.zeros((len(batch), longest), np.int64) for name in names}
            for row, i in enumerate(batch):
                own = {"input_ids": encodings[i].ids, "attention_mask": encodings[i].attention_mask}
                own["token_type_ids"] = encodings[i].type_ids
                for name in names:
                    inputs[name][row, : len(encodings[i])] = own[name]
            scores[batch] = session.run(None, inputs)[0][:, 0]
        order: list[int] = np.argsort(-scores, kind="stable")[:top].tolist()
        return order

    return rank
