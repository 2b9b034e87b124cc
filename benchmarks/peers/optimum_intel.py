"""optimum-intel: OVModelForQuestionAnswering, FP32 and INT8, as "Full quantization" in its documentation shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimum.intel import OVModelForQuestionAnswering

from .model import Inputs, Model, Outputs

FP32, INT8 = "optimum-intel-fp32", "optimum-intel-int8"


def prepare(checkpoint: Path, windows: Sequence[Inputs], folder: Path) -> None:
    """Export to FP32, and quantise that: static, NNCF's settings for transformers (SmoothQuant, bias correction)."""
    import nncf
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    model = OVModelForQuestionAnswering.from_pretrained(checkpoint, export=True, compile=False)
    model.save_pretrained(folder / FP32)
    OVQuantizer.from_pretrained(model).quantize(
        calibration_dataset=nncf.Dataset(windows),
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(windows))),
        save_directory=folder / INT8,
    )


def load(model: str, precision: str | None, threads: int, cache: str | None = None) -> Model:
    properties: dict[str, object] = {"INFERENCE_NUM_THREADS": threads}
    if precision:
        properties["INFERENCE_PRECISION_HINT"] = precision
    if cache:
        properties["CACHE_DIR"] = cache
    loaded = OVModelForQuestionAnswering.from_pretrained(model, ov_config=properties, local_files_only=True)

    def call(inputs: Inputs) -> Outputs:
        output = loaded(**inputs)
        return Outputs(output.start_logits, output.end_logits)

    return call
