"""What holds for the package as a whole: what it exports, what it imports, what it is pinned to."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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
    "serving": {"serving", "runtime"},
}
ROOMS_OF_RUNTIME = (  # each may import itself and those before it
    {"common"},
    {"length_config", "cpu", "cpu_quota", "tables"},
    {"bundles"},
    {"encoder"},
    {"tasks/__init__", "tasks/task"},  # what a task gives the runtime
    {"batches", "loading", "model", "stages", "stored_graph", "budget", "latency_table", "latency_cache"},
    {"tasks"},
    {"commands"},
    {"__init__", "cli"},
)
LINES = 300
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

every_folder = pytest.mark.parametrize("folder", MAY_IMPORT)


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """File and full name of each import in a folder's Python files, those inside functions too."""
    for file in (ROOT / folder).rglob("*.py"):
        yield from ((file.name, name) for name in imports_of(file))


def imports_of(file: Path, *, for_types: bool = True) -> Iterator[str]:
    """Full name of each import in a file of the package; `for_types` gives those under TYPE_CHECKING as well."""
    package = ["dynamic_tinybert", *file.relative_to(ROOT).parent.parts]
    tree = ast.parse(file.read_text())
    only_for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_for_types and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


def modules() -> dict[str, Path]:
    """All modules of the package by their full names."""
    files = [file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py")]
    names = (".".join(["dynamic_tinybert", *file.relative_to(ROOT).with_suffix("").parts]) for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imported_modules(file: Path, known: Mapping[str, Path], *, for_types: bool = True) -> set[str]:
    """Those of the known modules that a file imports, or imports a name of."""
    names = imports_of(file, for_types=for_types)
    return {name if name in known else name.rpartition(".")[0] for name in names} & known.keys()


def room_of_runtime(file: Path) -> int:
    """Index in ROOMS_OF_RUNTIME: of the module itself if it is named there, else of its folder."""
    path = file.relative_to(ROOT / "runtime").with_suffix("")
    for name in (path.as_posix(), path.parts[0]):
        for index, room in enumerate(ROOMS_OF_RUNTIME):
            if name in room:
                return index
    raise AssertionError(f"runtime/{path} is in no room; add it to ROOMS_OF_RUNTIME")


def distribution_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0].replace("_", "-").lower() for requirement in requirements}


@every_folder
def test_folders_import_no_folder_above_them(folder: str) -> None:
    own = [(file, name) for file, name in imports(folder) if name.startswith("dynamic_tinybert")]
    assert own
    assert [(file, name) for file, name in own if name.split(".")[1] not in MAY_IMPORT[folder]] == []


def test_rooms_of_the_runtime_import_no_room_behind_them() -> None:
    known = modules()
    runtime = {name: file for name, file in known.items() if file.is_relative_to(ROOT / "runtime")}
    assert {room_of_runtime(file) for file in runtime.values()} == set(range(len(ROOMS_OF_RUNTIME)))
    against = [
        (importer, imported)
        for importer, file in runtime.items()
        for imported in imported_modules(file, runtime)
        if room_of_runtime(runtime[imported]) > room_of_runtime(file)
    ]
    assert against == []


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    assert len(known) > 150
    graph = {name: imported_modules(file, known, for_types=False) - {name} for name, file in known.items()}
    assert len(graph["dynamic_tinybert.runtime.model"]) > 10
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")


def test_long_modules_say_why_they_are_long() -> None:
    folders = (*MAY_IMPORT, "package", "benchmarks", "scripts")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    long = [file for file in files if len(file.read_text().splitlines()) > LINES]
    silent = [file for file in long if f"over {LINES} lines" not in "".join(file.read_text().splitlines()[:10])]
    assert silent == [], f"cut them, or give the reason in the docstring: over {LINES} lines because ..."


@every_folder
def test_third_party_imports_are_declared(folder: str) -> None:
    declared = distribution_names(PROJECT["project"]["dependencies"])
    if folder != "runtime":
        extras = PROJECT["project"]["optional-dependencies"]
        own = (
            [extras["serving"], extras["ray"]]
            if folder == "serving"
            else [extras[name] for name in ("calibrate", "export", "training")]
        )
        declared |= distribution_names([requirement for extra in own for requirement in extra])
    providers = packages_distributions()
    for file, name in imports(folder):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names | {"dynamic_tinybert"}:
            # An extra that is not installed here (Ray) is looked up by the name of its module.
            names = {d.replace("_", "-").lower() for d in providers.get(top, [top])}
            assert declared & names, f"{file} imports {name}"


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
