"""Find the test modules that cannot be imported without PyTorch, so that they are skipped with a reason.

Only imports at the top of a module count; a single test that needs PyTorch calls `pytest.importorskip`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("torch", "transformers", "neural_compressor", "optimum", "torchmetrics")
NEED_THEM = (
    "dynamic_tinybert.calibration",
    "dynamic_tinybert.export",
    "dynamic_tinybert.modeling",
    "dynamic_tinybert.training",
    "support.classifiers",
    "support.fake_quantized",
    "fuzzing",
)
"""Our packages and helpers whose import may import PyTorch."""
TORCH_FREE = ("dynamic_tinybert.calibration.recalibrated",)


def lacking(file: Path) -> str | None:
    """The first missing package that a test module imports, itself or through our packages; None if there is none."""
    for name in imported(file):
        for heavy in HEAVY:
            if is_within(name, heavy) and not is_installed(heavy):
                return heavy
        needs_torch = any(is_within(name, ours) for ours in NEED_THEM)
        if needs_torch and not any(is_within(name, free) for free in TORCH_FREE) and not is_installed("torch"):
            return "torch"
    return None


def imported(file: Path) -> Iterator[str]:
    """Full names of everything that is imported at the top of a module."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def is_installed(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


class SkippedModule(pytest.Module):
    """Stands for a test module that is not imported."""

    def __init__(self, *, missing: str, **others: Any) -> None:  # noqa: ANN401 - what pytest gives
        super().__init__(**others)
        self.missing = missing

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        pytest.skip(f"{self.path.name} imports {self.missing}, directly or indirectly, and that is not installed")
