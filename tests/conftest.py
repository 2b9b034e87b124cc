"""Fixtures that several test folders share."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dynamic_tinybert import LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.encoder import extension_library

from support.answerable import write_checkpoint, write_questions
from support.held_model import workers
from support.leftovers import children, sockets
from support.tiny import letter_tokenizer, tiny_bundle
from support.without_torch import SkippedModule, lacking

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell without job control starts what it runs in the background, and every child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

with suppress(ImportError):  # tests of the runtime run without it
    import torch

    torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much where the cores are busy


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip a module of tests that imports PyTorch, or what needs it, where that is not installed."""
    missing = lacking(module_path)
    return SkippedModule.from_parent(parent, path=module_path, missing=missing) if missing else None


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for latency tables, instead of the user's own; also for processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DYNAMIC_TINYBERT_CACHE", str(folder))
        yield folder


def _folder_from(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names {what}")
    return Path(value)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """A real fine-tuned BertForQuestionAnswering checkpoint (MiniLM, 6 layers of 384)."""
    return _folder_from("DYNAMIC_TINYBERT_TEST_CHECKPOINT", "the folder of a fine-tuned MiniLM checkpoint")


@pytest.fixture(scope="session")
def squad_data() -> Path:
    """A folder with squad-search.json and squad-report.json."""
    return _folder_from("DYNAMIC_TINYBERT_TEST_DATA", "a folder with SQuAD v1.1 files")


@pytest.fixture(scope="session")
def fp32_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real checkpoint, exported to FP32."""
    pytest.importorskip("torch", reason="checkpoints are exported by PyTorch")
    from dynamic_tinybert.export import export_model

    output = tmp_path_factory.mktemp("bundles") / "fp32"
    export_model(checkpoint, output, precision="fp32")
    return output


_ISAS = os.environ.get("DYNAMIC_TINYBERT_TEST_ISAS", "")  # some of those that this CPU has, separated by commas


@pytest.fixture(scope="module", params=_ISAS.split(",") if _ISAS else extension_library.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test on every path that this CPU has; ops are made while the variable is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMIC_TINYBERT_ISA", request.param)
        assert extension_library.isa() == request.param
        yield request.param


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest instruction set of this CPU, with which graphs are fused."""
    if extension_library.available_isas() == ("scalar",):
        pytest.skip("this CPU has no AVX2, so that graphs are not fused")
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", extension_library.available_isas()[0])


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of three layers."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions with answers that it can learn."""
    return write_questions(tmp_path_factory.mktemp("data") / "questions.json")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny bundles of four layers by name: attention, learnt, int8-attention, int8-learnt."""
    pytest.importorskip("torch", reason="the samples are exported by PyTorch")
    from fuzzing.samples import write_samples

    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
def served_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with the configurations full and half, whose tokens are single letters."""
    folder = tmp_path_factory.mktemp("served")
    letter_tokenizer(folder)
    return tiny_bundle(folder, {"half": LengthConfig((1, 0.5, 0.3))})


@pytest.fixture(scope="session")
def served(served_bundle: Path) -> QuestionAnswerer:
    """What an asynchronous answerer answers with."""
    return QuestionAnswerer.from_pretrained(served_bundle, num_threads=1)


@pytest.fixture
def no_worker_stays() -> Iterator[None]:
    """Fail if a test leaves a thread of an asynchronous answerer."""
    yield
    assert workers() == []


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Fail if a test leaves a process or a socket."""
    before = sockets(), children()
    yield
    assert children() <= before[1]
    assert sockets() <= before[0]
