import pytest

from dynamic_tinybert.runtime.encoder import extension_library


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest instruction set of this CPU, with which graphs are fused."""
    if extension_library.available_isas() == ("scalar",):
        pytest.skip("this CPU has no AVX2, so that graphs are not fused")
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", extension_library.available_isas()[0])
