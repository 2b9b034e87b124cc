"""A stock OpenVINO IR with BERT's inputs, called through OpenVINO alone."""

from __future__ import annotations

import openvino as ov

from .model import Inputs, Model, Outputs


def load(model: str, precision: str, threads: int) -> Model:
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(model, "CPU", properties)
    names = [given.get_any_name() for given in compiled.inputs]
    request = compiled.create_infer_request()

    def call(inputs: Inputs) -> Outputs:
        request.infer({name: inputs[name] for name in names}, share_inputs=True)
        return Outputs(*(request.get_tensor(name).data.copy() for name in ("start_logits", "end_logits")))

    return call
