"""Features of this CPU that determine how a model runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_INT8_PRODUCTS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
"""Instruction sets that accumulate 8-bit products in 32 bits, by CPU flag, fastest first."""


@cache
def flags() -> frozenset[str]:
    """Feature flags of the first CPU as Linux names them; empty if there is no /proc/cpuinfo."""
    return frozenset(_cpuinfo("flags").split())


@cache
def name() -> str:
    """The CPU's model name, which virtual machines may truncate, and its INT8 instruction set."""
    products = next((name for flag, name in _INT8_PRODUCTS.items() if flag in flags()), "no VNNI")
    return f"{_cpuinfo('model name') or 'unknown CPU'}, {products}"


def int8_products_saturate() -> bool:
    """Whether pairs of u8*s8 products are summed in 16 bits here (AVX2 or AVX-512 without VNNI)."""
    return not flags() & _INT8_PRODUCTS.keys()


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 instructions make large matrix products, as in training, faster than f32."""
    return bool(flags() & {"avx512_bf16", "amx_bf16"})


def best_float_precision() -> str:
    """Precision of layers that are not INT8: bf16 only with AMX, because it is slower than f32 elsewhere."""
    return "bf16" if "amx_bf16" in flags() else "f32"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
