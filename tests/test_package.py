"""What holds for the package as a whole: what it exports, what it imports, what it is pinned to."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "runtime": {"runtime"},
    "modeling": {"modeling", "runtime"},
    "calibration": {"calibration", "modeling", "runtime"},
    "export": {"export", "calibration", "modeling", "runtime"},
    "training": {"training", "calibration", "modeling", "runtime"},
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

every_folder = pytest.mark.parametrize("folder", MAY_IMPORT)


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """File and full name of each import in a folder's Python files, those inside functions too."""
    for file in (ROOT / folder).rglob("*.py"):
        package = ["dynamic_tinybert", folder, *file.relative_to(ROOT / folder).parent.parts]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else []
                module = [*above, *([node.module] if node.module else [])]
                yield from ((file.name, ".".join([*module, alias.name])) for alias in node.names)


def distribution_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0].replace("_", "-").lower() for requirement in requirements}


@every_folder
def test_folders_import_no_folder_above_them(folder: str) -> None:
    own = [(file, name) for file, name in imports(folder) if name.startswith("dynamic_tinybert")]
    assert own
    assert [(file, name) for file, name in own if name.split(".")[1] not in MAY_IMPORT[folder]] == []


@every_folder
def test_third_party_imports_are_declared(folder: str) -> None:
    declared = distribution_names(PROJECT["project"]["dependencies"])
    if folder != "runtime":
        extras = PROJECT["project"]["optional-dependencies"]
        declared |= distribution_names([*extras["calibrate"], *extras["export"], *extras["training"]])
    providers = packages_distributions()
    for file, name in imports(folder):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names | {"dynamic_tinybert"}:
            assert declared & {d.replace("_", "-").lower() for d in providers[top]}, f"{file} imports {name}"


def test_runtime_imports_without_what_only_export_needs() -> None:
    blocked = ["torch", "transformers", "huggingface_hub", "optimum", "neural_compressor"]
    files = (file.relative_to(ROOT).with_suffix("") for file in (ROOT / "runtime").rglob("[!_]*.py"))
    modules = [f"dynamic_tinybert.{'.'.join(file.parts)}" for file in files]
    assert len(modules) > 50
    program = f"""
import sys
from importlib import import_module
sys.modules.update(dict.fromkeys({blocked}))
for name in {modules}:
    import_module(name)
    for loaded in [m for m in sys.modules if m.startswith("dynamic_tinybert")]:
        del sys.modules[loaded]  # so that each is imported first, and none leans on another
import dynamic_tinybert.calibration, dynamic_tinybert.export
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@every_folder
def test_all_is_sorted_complete_and_resolvable(folder: str) -> None:
    package = import_module(f"dynamic_tinybert.{folder}")
    names: list[str] = package.__all__
    own = {  # absolute imports in an __init__.py are of helpers
        alias.name
        for node in ast.walk(ast.parse((ROOT / folder / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert names == sorted(own)
    for name in names:
        assert getattr(package, name).__name__ == name


@every_folder
def test_the_installed_package_is_typed(folder: str) -> None:
    assert files(f"dynamic_tinybert.{folder}").joinpath("py.typed").is_file()


def test_the_extension_is_built_for_the_openvino_that_is_installed() -> None:
    requirements = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    pins = [requirement for requirement in requirements if requirement.startswith("openvino")]
    assert pins == [f"openvino=={version('openvino')}"] * 2
