"""In what precision the machine trains."""

from __future__ import annotations

import torch

from dynamic_tinybert.runtime import cpu


def half_precision() -> torch.dtype | None:
    """What mixed precision multiplies in here: bfloat16, float16 on a GPU that lacks it, None on a CPU that does."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu.multiplies_bfloat16() else None
