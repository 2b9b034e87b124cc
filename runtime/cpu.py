"""What this CPU can do, as far as it decides how a model runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_INT8_PRODUCTS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
"""By flag what adds products of 8 bits in 32 bits, the fastest first."""


@cache
def flags() -> frozenset[str]:
    """Feature flags of the first CPU as Linux names them; empty where there is no /proc/cpuinfo."""
    return frozenset(_cpuinfo("flags").split())


@cache
def name() -> str:
    """The CPU's model name, which virtual machines cut short, and what decides how fast INT8 is on it."""
    products = next((name for flag, name in _INT8_PRODUCTS.items() if flag in flags()), "no VNNI")
    return f"{_cpuinfo('model name') or 'unknown CPU'}, {products}"


def int8_products_saturate() -> bool:
    """Whether pairs of u8*s8 products are summed in 16 bits here (AVX2 or AVX-512 without VNNI)."""
    return not flags() & _INT8_PRODUCTS.keys()


def multiplies_bfloat16() -> bool:
    """Whether there are instructions for it, which make large products, as training has them, faster than f32."""
    return bool(flags() & {"avx512_bf16", "amx_bf16"})


def best_float_precision() -> str:
    """Precision for what is not INT8: bf16 only where AMX multiplies it, elsewhere it is slower than f32."""
    return "bf16" if "amx_bf16" in flags() else "f32"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
