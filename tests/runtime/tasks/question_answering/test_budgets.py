"""Calls with a budget: which configuration runs, what the answers say of it, and where the latency table comes from."""

import json
import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle, write_manifest
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.latency_table import LatencyTable, Run, measure_latency_table
from dynamic_tinybert.runtime.tasks.question_answering import budgets
from dynamic_tinybert.runtime.tasks.question_answering.sample_windows import sample_windows
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.tiny import letter_tokenizer, tiny_bundle

QUESTION, CONTEXT = "what was in the box?", "the fox was in the box and the cat was in the hat"
CONFIGS = {"half": LengthConfig((1, 0.7, 0.4)), "fast": LengthConfig((0.6, 0.4, 0.2))}
LOSSES = {"half": [-0.2, -0.4, 0.1], "fast": [-1.0, -2.0, -0.5]}
SECONDS = {"full": 1000.0, "half": 100.0, "fast": 10.0}
"""Thousand times slower than it is, so that nothing depends on how busy the machine is."""


def write_bundle(folder: Path, figures: Mapping[str, object] = LOSSES) -> Path:
    """A tiny bundle with figures of its length configurations."""
    bundle = open_bundle(tiny_bundle(folder, CONFIGS))
    configs = {
        name: NamedLengthConfig(named.config, {"f1_against_full": figures[name]} if name in figures else None)
        for name, named in bundle.length_configs.items()
    }
    write_manifest(
        folder,
        significance=bundle.significance,
        length_configs=configs,
        quantization=bundle.quantization,
        versions=bundle.versions,
        source=bundle.source,
    )
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> LatencyTable:
        raise AssertionError("measured")

    monkeypatch.setattr(budgets, "measure_latency_table", fail)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of measured times: so many milliseconds for each window, whatever its length."""

    def table(*arguments: object, **options: object) -> LatencyTable:
        return LatencyTable(
            {name: {(length, 1): ms for length in (32, 384)} for name, ms in SECONDS.items()},
        )

    monkeypatch.setattr(budgets, "measure_latency_table", table)
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")


@pytest.fixture
def answerer(bundle: Path, known: None) -> QuestionAnswerer:
    return QuestionAnswerer.from_pretrained(bundle)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"budget_ms": 5000}, "full"),
        ({"budget_ms": np.float32(5000)}, "full"),
        ({"budget_ms": 900}, "half"),
        ({"budget_ms": 95}, "fast"),
        ({"budget_ms": 1e-3}, "fast"),
        ({"max_f1_loss": 0}, "full"),
        ({"max_f1_loss": 0.39}, "full"),
        ({"max_f1_loss": 0.4}, "half"),
        ({"max_f1_loss": 2}, "fast"),
        ({"budget_ms": 5000, "max_f1_loss": 2}, "full"),
        ({"budget_ms": 900, "max_f1_loss": 2}, "half"),
        ({"budget_ms": 1e-3, "max_f1_loss": 0.5}, "half"),
        ({"budget_ms": 1e-3, "max_f1_loss": 0.1}, "full"),
    ],
)
def test_which_configuration_runs(answerer: QuestionAnswerer, limits: Mapping[str, float], name: str) -> None:
    answer = answerer(QUESTION, CONTEXT, **limits)  # type: ignore[call-overload]
    assert answer.pop("length_config") == name
    assert answer.pop("ms") > 0
    met = answer.pop("budget_met")
    if "budget_ms" not in limits:
        assert met is None
    elif limits["budget_ms"] == 1e-3:
        assert met is False
    elif limits["budget_ms"] == 5000:
        assert met is True
    assert answer == answerer(QUESTION, CONTEXT, length_config=name)
    assert set(answer) == {"score", "start", "end", "answer"}  # and so without a budget


def test_the_windows_of_a_long_text_and_of_all_questions_share_the_budget(answerer: QuestionAnswerer) -> None:
    long = " ".join([CONTEXT] * 20)
    windows = len(answerer._windowing.cut(QUESTION, long))
    assert windows > 2
    for count in (windows, windows - 1):  # half takes 100 ms a window, and some is gone when it is chosen
        answer = answerer(QUESTION, long, budget_ms=100 * count + 90)
        assert answer["length_config"] == ("half" if count == windows else "fast")
    for count, name in ((3, "half"), (2, "fast")):
        answers = answerer.answer_batch([QUESTION] * 3, CONTEXT, budget_ms=100 * count + 90, top_k=2)
        assert [len(own) for own in answers] == [2, 2, 2]
        flat = [answer for own in answers for answer in own]
        assert {answer["length_config"] for answer in flat} == {name}
        assert len({answer["ms"] for answer in flat}) == 1


def test_what_was_spent_before_the_choice_counts(answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    answerer.latency_table()
    times = iter([0.0, 0.95, 0.95, 0.95, 2.0])  # begin, before and after the table, choice, end
    monkeypatch.setattr(budgets, "monotonic", lambda: next(times))
    answer = answerer(QUESTION, CONTEXT, budget_ms=1010)
    assert answer["length_config"] == "fast"
    assert answer["ms"] == 2000
    assert answer["budget_met"] is False


def test_the_time_of_measuring_is_no_part_of_the_call(
    answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.25, 3.25, 3.25, 3.5])
    monkeypatch.setattr(budgets, "monotonic", lambda: next(times))
    assert answerer(QUESTION, CONTEXT, budget_ms=600)["ms"] == 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_ms": 0}, "budget_ms must be above 0"),
        ({"budget_ms": -1}, "budget_ms must be above 0"),
        ({"budget_ms": float("nan")}, "budget_ms must be a finite number"),
        ({"budget_ms": "20"}, "budget_ms must be a number, not '20'"),
        ({"max_f1_loss": -0.1}, "max_f1_loss must be 0 or more"),
        ({"max_f1_loss": float("inf")}, "max_f1_loss must be a finite number"),
        ({"budget_ms": 20, "length_config": "half"}, "length_config='half' together with a budget"),
        ({"max_f1_loss": 1, "length_config": (1, 1, 0.5)}, "give either"),
        ({"budget_ms": 20, "max_seq_len": 0}, "max_seq_len must be"),
    ],
)
def test_what_is_refused(bundle: Path, no_measuring: None, options: Mapping[str, Any], message: str) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    with pytest.raises(InvalidInputError, match=message):
        answerer(QUESTION, CONTEXT, **options)
    with pytest.raises(InvalidInputError, match=message):
        answerer.answer_batch([QUESTION], [CONTEXT], **options)


@pytest.mark.parametrize("texts", [("", CONTEXT), (QUESTION, ""), (QUESTION, None), ([QUESTION], [1])])
def test_bad_texts_are_refused_before_anything_is_measured(
    bundle: Path, no_measuring: None, texts: tuple[Any, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        QuestionAnswerer.from_pretrained(bundle)(*texts, budget_ms=20)


def test_no_questions_have_no_answers(answerer: QuestionAnswerer) -> None:
    assert answerer.answer_batch([], CONTEXT, budget_ms=20) == []


def test_a_bundle_without_figures(tmp_path: Path, known: None) -> None:
    answerer = QuestionAnswerer.from_pretrained(write_bundle(tmp_path / "bundle", {}))
    with pytest.raises(InvalidInputError, match="what half, fast lose, and this bundle has no f1_against_full of them"):
        answerer(QUESTION, CONTEXT, max_f1_loss=1.0)
    assert answerer(QUESTION, CONTEXT, budget_ms=900)["length_config"] == "half"
    assert answerer(QUESTION, CONTEXT, budget_ms=5000)["length_config"] == "full"


def test_a_bundle_with_figures_of_some(tmp_path: Path, known: None) -> None:
    answerer = QuestionAnswerer.from_pretrained(write_bundle(tmp_path / "bundle", {"fast": [-1, -2, 0]}))
    assert answerer(QUESTION, CONTEXT, max_f1_loss=3)["length_config"] == "fast"
    assert answerer(QUESTION, CONTEXT, budget_ms=900)["length_config"] == "fast"  # of half nothing is known


def test_a_bundle_with_full_only_needs_no_table(tmp_path: Path, no_measuring: None) -> None:
    answerer = QuestionAnswerer.from_pretrained(tiny_bundle(tmp_path / "bundle"))
    answer = answerer(QUESTION, CONTEXT, budget_ms=1e-6, max_f1_loss=0)
    assert answer["length_config"] == "full"
    assert answer["budget_met"] is False
    assert answerer(QUESTION, CONTEXT, budget_ms=60_000)["budget_met"] is True


def test_other_ratios_are_never_compiled(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    ran: set[LengthConfig] = set()
    compiled_graph = LengthAdaptiveModel._graph

    def recorded(model: LengthAdaptiveModel, config: LengthConfig) -> CompiledGraph:
        ran.add(config)
        return compiled_graph(model, config)

    monkeypatch.setattr(LengthAdaptiveModel, "_graph", recorded)
    monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
    for budget in (0.001, 0.5, 1, 2, 5, 10, 1000):
        answerer(QUESTION, CONTEXT, budget_ms=budget)
    assert ran == {answerer.model.resolve(name) for name in ("full", "half", "fast")}


@pytest.fixture
def count_measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Measures for a short time, and counts how often."""
    measured = []
    measure = measure_latency_table

    def counted(run: Run, names: Sequence[str], *, max_length: int, max_compiled: int | None) -> LatencyTable:
        table = measure(run, names, max_length=max_length, max_compiled=max_compiled, seconds=0.2)
        measured.append(table)
        return table

    monkeypatch.setattr(budgets, "measure_latency_table", counted)
    return lambda: len(measured)


def test_it_is_measured_once_and_kept(bundle: Path, tmp_path: Path, count_measured: Callable[[], int]) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=1)
    table = answerer.latency_table(tmp_path)
    assert list(table.ms) == ["full", "half", "fast"]
    assert all((32, 1) in own and min(own.values()) > 0 for own in table.ms.values())
    assert answerer.latency_table(tmp_path) is table
    answerer(QUESTION, CONTEXT, budget_ms=5)
    assert count_measured() == 1
    assert QuestionAnswerer.from_pretrained(bundle, num_threads=1).latency_table(tmp_path) == table
    assert count_measured() == 1


def test_another_way_to_run_is_measured_anew(
    bundle: Path, tmp_path: Path, count_measured: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[dict[str, Any]] = [{}, {"num_threads": 1}, {"elastic": True}, {"ov_config": {"NUM_STREAMS": 2}}]
    for way in ways:
        QuestionAnswerer.from_pretrained(bundle, **way).latency_table(tmp_path)
    assert count_measured() == len(ways)
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")
    QuestionAnswerer.from_pretrained(bundle).latency_table(tmp_path)
    other = write_bundle(tmp_path / "other", {"half": [0, 0, 0]})
    QuestionAnswerer.from_pretrained(other).latency_table(tmp_path)
    assert count_measured() == len(ways) + 2
    for way in ways:
        QuestionAnswerer.from_pretrained(other, **way).latency_table(tmp_path)
    assert count_measured() == 2 * len(ways) + 1
    for way in ways:  # OpenVINO's cache makes starts faster, and no request
        QuestionAnswerer.from_pretrained(other, **way, compiled_cache_dir=tmp_path / "openvino").latency_table(tmp_path)
    assert count_measured() == 2 * len(ways) + 1


def test_a_damaged_cache_is_measured_anew(bundle: Path, tmp_path: Path, count_measured: Callable[[], int]) -> None:
    QuestionAnswerer.from_pretrained(bundle).latency_table(tmp_path)
    (file,) = (tmp_path / "latency").iterdir()
    content = json.loads(file.read_text())
    damaged = ["{", json.dumps({**content, "key": {}}), json.dumps({**content, "ms": {"full": content["ms"]["full"]}})]
    for count, text in enumerate(damaged, 2):
        file.write_text(text)
        QuestionAnswerer.from_pretrained(bundle).latency_table(tmp_path)
        assert count_measured() == count
        QuestionAnswerer.from_pretrained(bundle).latency_table(tmp_path)
        assert count_measured() == count


def test_without_a_cache(
    bundle: Path, tmp_path: Path, count_measured: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # nobody can write below it, not even root, as in a read-only home
    for place in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("DYNAMIC_TINYBERT_CACHE", place)
        assert QuestionAnswerer.from_pretrained(bundle)(QUESTION, CONTEXT, budget_ms=50)["length_config"]
    assert count_measured() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_bundle_that_has_gone_is_not_cached(tmp_path: Path, count_measured: Callable[[], int]) -> None:
    folder = write_bundle(tmp_path / "bundle")
    answerer = QuestionAnswerer.from_pretrained(folder)
    (folder / "dynamic_tinybert.json").unlink()
    assert answerer.latency_table(tmp_path / "cache").ms
    assert not (tmp_path / "cache").exists()


def test_threads_wait_for_one_measurement(bundle: Path, tmp_path: Path, count_measured: Callable[[], int]) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    tables: list[LatencyTable] = []
    threads = [threading.Thread(target=lambda: tables.append(answerer.latency_table(tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count_measured() == 1
    assert len(tables) == 6
    assert all(table is tables[0] for table in tables)


def test_pickles_and_forks(bundle: Path, tmp_path: Path, count_measured: Callable[[], int]) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    answerer.latency_table(tmp_path)
    copy = pickle.loads(pickle.dumps(answerer))
    assert copy.latency_table(tmp_path) == answerer.latency_table(tmp_path)
    assert count_measured() == 1
    child = os.fork()
    if not child:
        met = answerer(QUESTION, CONTEXT, budget_ms=60_000)["budget_met"]
        os._exit(0 if met and count_measured() == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_elastic_model(bundle: Path, tmp_path: Path, count_measured: Callable[[], int]) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle, elastic=True, max_compiled=1)
    answerer.latency_table(tmp_path)
    assert answerer(QUESTION, CONTEXT, budget_ms=60_000)["length_config"] == "full"
    with pytest.raises(LengthConfigError):
        answerer(QUESTION, CONTEXT, length_config="other")


@pytest.mark.parametrize("length", [8, 32, 100, 128])
def test_sample_windows_have_the_length(bundle: Path, length: int) -> None:
    windows = sample_windows(Windowing.of(open_bundle(bundle)), length)
    assert 1 < len(windows) <= 16
    assert {len(window) for window in windows} == {length}
    assert all(window.context.stop > window.context.start for window in windows)
    assert len({tuple(window.input_ids) for window in windows}) > 1


def test_sample_windows_where_letters_are_tokens(tmp_path: Path) -> None:
    windowing = Windowing(letter_tokenizer(tmp_path), 512)
    for length in (32, 384):
        assert {len(window) for window in sample_windows(windowing, length)} == {length}
    with pytest.raises(InvalidInputError, match="no windows of 4 tokens"):
        sample_windows(windowing, 4)
