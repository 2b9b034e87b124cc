"""ONNX Runtime FP32 and INT8, quantised as "Quantize ONNX Models" in its documentation advises for transformers.

That is: first the transformer optimiser, then quantisation per channel, without `reduce_range`, which is for CPUs
without VNNI. Where this advice did not give the fastest model, a faster one is measured as well, or instead:

- The session's own graph optimisations make the unoptimised graph as fast or faster here, so that FP32 and
  dynamic INT8 are measured from both.
- Static: activations u8, not s8, which took 2.5 times as long; ranges that are the mean of the windows' extremes, as
  in our own export; the matmuls and embedding tables only; attention left unfused, as the QDQ format would keep a
  fused one in FP32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .model import Inputs, Model, Outputs

FP32, FP32_OPTIMIZED = "onnxruntime-fp32.onnx", "onnxruntime-fp32-optimized.onnx"
DYNAMIC, DYNAMIC_OPTIMIZED = "onnxruntime-int8-dynamic.onnx", "onnxruntime-int8-dynamic-optimized.onnx"
STATIC = "onnxruntime-int8-static.onnx"

_LOGITS = ["start_logits", "end_logits"]


def prepare(checkpoint: Path, windows: Sequence[Inputs], folder: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Windows(CalibrationDataReader):  # type: ignore[misc]  # it comes without types
        def __init__(self) -> None:
            self._left: Iterator[Inputs] = iter(windows)

        def get_next(self) -> Inputs | None:
            return next(self._left, None)

    _export(checkpoint, folder / FP32)
    _optimize(checkpoint, folder / FP32, folder / FP32_OPTIMIZED, fuse_attention=True)
    # The optimiser's own ops have no shape inference, which quantisation would ask for the type of their outputs.
    types = {"DefaultTensorType": TensorProto.FLOAT}
    for source, target in ((FP32, DYNAMIC), (FP32_OPTIMIZED, DYNAMIC_OPTIMIZED)):
        quantize_dynamic(
            folder / source, folder / target, per_channel=True, weight_type=QuantType.QInt8, extra_options=types
        )
    with TemporaryDirectory() as scratch:
        optimized, with_shapes = Path(scratch, "optimized.onnx"), Path(scratch, "with_shapes.onnx")
        _optimize(checkpoint, folder / FP32, optimized, fuse_attention=False)
        quant_pre_process(optimized, with_shapes, auto_merge=True)
        quantize_static(
            with_shapes,
            folder / STATIC,
            Windows(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=types | {"CalibMovingAverage": True},
        )


def load(model: str, threads: int) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def call(inputs: Inputs) -> Outputs:
        return Outputs(*session.run(_LOGITS, inputs))

    return call


def _export(checkpoint: Path, target: Path) -> None:
    """Export with the exporter, and with a mask, whose graphs the transformer optimiser can fuse."""
    import torch
    from torch import Tensor, nn
    from transformers import BertForQuestionAnswering

    class WithAdditiveMask(nn.Module):
        """Computes the mask as transformers 4 did; that of 5.5 cannot be traced."""

        def __init__(self) -> None:
            super().__init__()
            self.model = BertForQuestionAnswering.from_pretrained(
                checkpoint, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            )

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
            batch, length = input_ids.shape
            mask = 1.0 - attention_mask[:, None, None, :].expand(batch, 1, length, length).float()
            mask = mask.masked_fill(mask.bool(), torch.finfo(torch.float32).min)
            output = self.model(input_ids=input_ids, attention_mask=mask, token_type_ids=token_type_ids)
            return output.start_logits, output.end_logits

    example = torch.ones(2, 48, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        WithAdditiveMask().eval(),
        (example, example, example),
        target,
        dynamo=False,
        input_names=names,
        output_names=_LOGITS,
        dynamic_axes={name: {0: "batch", 1: "length"} for name in (*names, *_LOGITS)},
        opset_version=17,
    )


def _optimize(checkpoint: Path, source: Path, target: Path, *, fuse_attention: bool) -> None:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import BertConfig

    config = BertConfig.from_pretrained(checkpoint, local_files_only=True)
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # as in ONNX Runtime's own benchmark for INT8
    options.enable_attention = fuse_attention
    optimized = optimize_model(
        str(source),
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
    )
    fused = optimized.get_fused_operator_statistics()["Attention"]
    expected = config.num_hidden_layers if fuse_attention else 0
    if fused != expected:
        raise RuntimeError(f"ONNX Runtime's optimiser fused {fused} attentions, not {expected}")
    optimized.save_model_to_file(str(target))
