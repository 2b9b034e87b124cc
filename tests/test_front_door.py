"""What programs import from `dynamic_tinybert` itself, and what that loads."""

import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import dynamic_tinybert
from dynamic_tinybert import runtime, serving

ROOT = Path(__file__).parents[1]
HEAVY = ("openvino", "torch", "numpy", "transformers")


def loaded_by(program: str) -> set[str]:
    """Which of some large packages a program has loaded at its end."""
    report = f"\nimport sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("program", "loaded"),
    [
        ("import dynamic_tinybert", set()),
        ("import dynamic_tinybert as d; d.__version__, dir(d)", set()),
        ("import dynamic_tinybert.runtime", set()),
        ("from dynamic_tinybert import LengthConfig", {"numpy"}),
        ("from dynamic_tinybert import LengthAdaptiveModel, QuestionAnswerer", {"numpy", "openvino"}),
        ("import dynamic_tinybert.serving", set()),
        ("from dynamic_tinybert import AsyncQuestionAnswerer", {"numpy", "openvino"}),
        ("from dynamic_tinybert import *; QuestionAnswerer, __version__", {"numpy", "openvino"}),
        ("import dynamic_tinybert.runtime.cli", {"numpy"}),  # every command imports it, --help too
    ],
)
def test_a_name_loads_no_more_than_it_needs(program: str, loaded: set[str]) -> None:
    assert loaded_by(program) == loaded


@pytest.mark.parametrize(
    ("home", "name"),
    [
        (runtime, "LengthAdaptiveModel"),
        (runtime, "LengthConfig"),
        (runtime, "QuestionAnswerer"),
        (serving, "AsyncQuestionAnswerer"),
        (serving, "AsyncReranker"),
        (serving, "AsyncTextClassifier"),
    ],
)
def test_names_are_those_of_the_folders(home: ModuleType, name: str) -> None:
    assert getattr(dynamic_tinybert, name) is getattr(home, name)
    assert {name, "__version__"} <= set(dir(dynamic_tinybert)) & set(dynamic_tinybert.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    assert dynamic_tinybert.__version__ == version("dynamic-tinybert")


@pytest.mark.parametrize("package", ["dynamic_tinybert", "dynamic_tinybert.runtime", "dynamic_tinybert.serving"])
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'QuestionAnswererer'"):
        _ = import_module(package).QuestionAnswererer


def test_every_name_of_the_runtime_is_listed_and_has_a_home() -> None:
    assert set(runtime.__all__) <= set(dir(runtime))
    for name in runtime.__all__:
        found = getattr(runtime, name)
        assert found.__name__ == name
        assert getattr(import_module(found.__module__), name) is found


def test_imports_that_were_documented_before_keep_working() -> None:
    from dynamic_tinybert.calibration import calibrate
    from dynamic_tinybert.export import export_model
    from dynamic_tinybert.runtime import DynamicTinyBertError, LengthAdaptiveModel, LengthConfig, QuestionAnswerer
    from dynamic_tinybert.runtime import explain as explain_question
    from dynamic_tinybert.training import train

    assert {calibrate.__name__, export_model.__name__, train.__name__, explain_question.__name__} == {
        "calibrate",
        "export_model",
        "train",
        "explain",
    }
    assert issubclass(DynamicTinyBertError, Exception)
    assert (LengthAdaptiveModel, LengthConfig, QuestionAnswerer) == (
        dynamic_tinybert.LengthAdaptiveModel,
        dynamic_tinybert.LengthConfig,
        dynamic_tinybert.QuestionAnswerer,
    )


def test_a_wheel_holds_the_root_package_and_all_folders(tmp_path: Path) -> None:
    """Without the C++ extension, which has no part in this."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "-Cwheel.cmake=false", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("package/dynamic_tinybert", "runtime", "modeling", "calibration", "export", "training", "serving"):
        target = "dynamic_tinybert" if folder.startswith("package") else f"dynamic_tinybert/{folder}"
        files = {f"{target}/{file.relative_to(ROOT / folder)}" for file in (ROOT / folder).rglob("*.py")}
        assert files | {f"{target}/py.typed"} <= names
    page = {file.name for file in (ROOT / "serving/http/page/static").iterdir()}
    assert "index.html" in page
    assert {f"dynamic_tinybert/serving/http/page/static/{name}" for name in page} <= names
