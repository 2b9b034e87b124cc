"""The precision that training uses on this machine."""

from __future__ import annotations

import torch

from dynamic_tinybert.runtime import cpu


def half_precision() -> torch.dtype | None:
    """The type for mixed precision: bfloat16; float16 on GPUs without bfloat16; None on CPUs without bfloat16."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu.multiplies_bfloat16() else None
