"""PyTorch FP32: transformers' BertForQuestionAnswering with scaled-dot-product attention, its fastest on a CPU."""

from __future__ import annotations

import torch
from transformers import AutoModelForQuestionAnswering, BertConfig, BertForQuestionAnswering

from .model import Inputs, Model, Outputs


def load(checkpoint: str | None, threads: int) -> Model:
    """A checkpoint; None for BERT-base's shape (12 layers, 768 wide) with random weights."""
    torch.set_num_threads(threads)
    if checkpoint is None:
        model = AutoModelForQuestionAnswering.from_config(BertConfig(), dtype=torch.float32, attn_implementation="sdpa")
    else:
        model = BertForQuestionAnswering.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        )
    model.eval()

    @torch.inference_mode()
    def call(inputs: Inputs) -> Outputs:
        output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return Outputs(output.start_logits.numpy(), output.end_logits.numpy())

    return call
