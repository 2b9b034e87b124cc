from collections.abc import Iterator

import pytest

from dynamic_tinybert.runtime import cpu


@pytest.fixture(autouse=True)
def forgetting() -> Iterator[None]:
    cpu.name.cache_clear()
    yield
    cpu.name.cache_clear()


@pytest.mark.parametrize(
    ("flags", "ending", "saturates"),
    [
        ({"avx2"}, ", no VNNI", True),
        ({"avx2", "avx_vnni"}, ", AVX-VNNI", False),
        ({"avx2", "avx512_vnni"}, ", AVX-512 VNNI", False),
        ({"avx2", "avx512_vnni", "amx_int8"}, ", AMX", False),
    ],
)
def test_a_cpus_name_tells_how_it_multiplies_integers(
    flags: set[str], ending: str, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags))
    assert cpu.name().endswith(ending)
    assert len(cpu.name()) > len(ending)
    assert cpu.int8_products_saturate() is saturates
