import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset15
from openvino.utils.node_factory import NodeFactory

from dynamic_tinybert import runtime
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.common.errors import ExtensionError
from dynamic_tinybert.runtime.encoder import extension_library

VARIABLE = "DYNAMIC_TINYBERT_EXTENSION"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the extension and its build record, which the environment names."""
    library = extension_library.extension_path()
    copy = tmp_path / library.name
    shutil.copy(library, copy)
    shutil.copy(library.with_name("extension-build.json"), tmp_path)
    monkeypatch.setenv(VARIABLE, str(copy))
    return copy


def test_the_environment_names_the_library(copied: Path) -> None:
    assert extension_library.extension_path() == copied
    extension_library.check_extension()


def test_built_for_this_openvino() -> None:
    record = json.loads(extension_library.extension_path().with_name("extension-build.json").read_text())
    assert ov.__version__.startswith(record["openvino"] + "-")


def test_missing_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no.so"))
    with pytest.raises(ExtensionError, match=rf"not at {tmp_path}/no.so; correct or unset {VARIABLE}"):
        extension_library.core()


def test_missing_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(runtime, "__path__", [str(tmp_path)])
    with pytest.raises(ExtensionError, match=rf"not at {tmp_path}/libdynamic_tinybert.* pip install"):
        extension_library.extension_path()


def test_found_in_any_folder_of_the_package(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(runtime, "__path__", ["/nowhere", str(copied.parent)])
    assert extension_library.extension_path() == copied


def test_built_for_another_openvino(copied: Path) -> None:
    copied.with_name("extension-build.json").write_text('{"openvino": "2026.1.0"}')
    running = ov.__version__.partition("-")[0]
    with pytest.raises(
        ExtensionError,
        match=rf"for OpenVINO 2026.1.0, but OpenVINO {running} is installed.*pip install openvino==2026.1.0",
    ):
        extension_library.core()


@pytest.mark.parametrize("record", [None, "", "{}", "[]"])
def test_without_a_readable_build_record(copied: Path, record: str | None) -> None:
    path = copied.with_name("extension-build.json")
    path.unlink() if record is None else path.write_text(record)
    with pytest.raises(ExtensionError, match=rf"cannot read {path}"):
        extension_library.check_extension()


def test_not_a_library(copied: Path) -> None:
    copied.write_bytes(b"nothing")
    with pytest.raises(ExtensionError, match=f"cannot load {copied}"):
        extension_library.check_extension()


def test_tiles_are_used_or_said_to_be_refused() -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    available, refused = "amx" in extension_library.available_isas(), "amx" in extension_library.refused_isas()
    assert not (available and refused)
    if flags and "amx_int8" in flags[1].split():
        assert available or refused
    else:  # a kernel too old for tiles does not name them
        assert not available


def test_isas() -> None:
    assert extension_library.isa() in extension_library.available_isas()
    assert extension_library.available_isas()[-1] == "scalar"


def test_the_fastest_isa_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNAMIC_TINYBERT_ISA", raising=False)
    assert extension_library.isa() == extension_library.available_isas()[0]
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")
    assert extension_library.isa() == "scalar"


def test_a_path_that_computes_wrong_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as a path is tried once in each."""
    monkeypatch.delenv("DYNAMIC_TINYBERT_ISA", raising=False)
    fastest, *others = extension_library.available_isas()
    code = """if True:
        import warnings
        from dynamic_tinybert.runtime import cpu
        from dynamic_tinybert.runtime.encoder import extension_library
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            extension_library.check_extension()
            extension_library.core()
        found = [str(warning.message) for warning in caught]
        print(extension_library.isa(), extension_library.distrusted_isas(), found)
    """
    monkeypatch.setenv("DYNAMIC_TINYBERT_TEST_WRONG_ISAS", fastest)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    warning = f"on this CPU, {cpu.name()}, the kernels for {fastest} give wrong results; {others[0]} is used instead"
    assert done.stdout.startswith(f"{others[0]} ('{fastest}',) [{warning!r}"[:-1])
    assert done.stdout.count("on this CPU") == 1
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", fastest)
    named = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"the kernels for {fastest} give other results than the scalar ones on this CPU" in named.stderr


@pytest.mark.parametrize("isa", extension_library.available_isas())
def test_every_path_that_the_cpu_has_computes_right(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", isa)
    assert extension_library.isa() == isa


def test_an_unknown_isa_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "neon")
    message = "DYNAMIC_TINYBERT_ISA is 'neon'.*one of: .*scalar"
    for call in (extension_library.isa, extension_library.check_extension, extension_library.core):
        with pytest.raises(ExtensionError, match=message):
            call()
    factory = NodeFactory()  # as a graph that is read from a file would
    factory.add_extension(extension_library.extension_path())
    rows, mask = opset15.parameter([1, 4, 24], np.float32), opset15.parameter([1, 4], np.float32)
    with pytest.raises(RuntimeError, match=message):
        factory.create("AttentionWithSignificance", [rows, mask], {"heads": 2})
