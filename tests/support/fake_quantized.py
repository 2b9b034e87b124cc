"""An independent computation of what an INT8 graph should compute."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear


def fake_quantized(
    model: BertForQuestionAnswering, quantized: Mapping[str, QuantizedLinear]
) -> BertForQuestionAnswering:
    """A copy of a model that simulates INT8 with PyTorch's own operations, word embeddings included."""
    fake = copy.deepcopy(model)

    def quantize_input(linear: QuantizedLinear) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
        smoothing = torch.from_numpy(linear.smoothing)
        scale, zero_point = linear.activation_scale, linear.activation_zero_point
        return lambda _, args: torch.fake_quantize_per_tensor_affine(args[0] * smoothing, scale, zero_point, 0, 255)

    with torch.no_grad():
        for name, linear in quantized.items():
            weight = torch.from_numpy(linear.weight * linear.weight_scale[:, None])
            fake.get_parameter(f"{name}.weight").copy_(weight)
            fake.get_submodule(name).register_forward_pre_hook(quantize_input(linear))
        words = fake.bert.embeddings.word_embeddings.weight
        zeros = torch.zeros(len(words), dtype=torch.int32)
        words.copy_(torch.fake_quantize_per_channel_affine(words, words.abs().amax(1) / 127, zeros, 0, -127, 127))
    return fake
