import errno
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from typer.testing import CliRunner

from dynamic_tinybert.calibration.report import (
    Latency,
    NamedResult,
    Peer,
    Point,
    Report,
    Spread,
    evaluation_report,
    write_report,
)
from dynamic_tinybert.calibration.report.decomposition import Decomposition
from dynamic_tinybert.calibration.report.labels import Label, place_labels
from dynamic_tinybert.calibration.report.length_gain import LengthGain
from dynamic_tinybert.calibration.report.svg import drawing
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.cli import app
from dynamic_tinybert.runtime.common.errors import InvalidInputError, StorageError
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.measure import QuestionAnsweringMeasure
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.tiny import tiny_bert, write_tiny_bundle

VOID = {"meta", "br", "input"}
HOSTILE = """<script>alert("$x$")</script> & 'co'"""


class Page(HTMLParser):
    """What a page holds; refuses tags that do not match."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []  # the element, and what stands in it
        self.tables: list[list[list[str]]] = []
        self.marks: list[tuple[str, float, float]] = []  # a title, and where in its picture the mark stands
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()
        values = dict(attrs)
        if tag == "use" and self.texts_of("title")[1:]:
            self.marks.append((self.texts_of("title")[-1], float(values["x"] or 0), float(values["y"] or 0)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))
        if "table" in self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def texts_of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def named(name: str, cost: float, *, layers: int = 6, threshold: float | None = None) -> NamedResult:
    """A plausible result of a configuration that takes `cost` of the time of `full`."""
    ratios = tuple(max(0.1, 1 - (1 - cost) * layer / 2) for layer in range(layers))
    loss = 3 * (1 - cost)
    return NamedResult(
        name=name,
        config=LengthConfig(ratios, (None, *[threshold] * (layers - 1))),
        point=Point(10 * cost, 81.5 - loss, 1 / cost),
        means=(78.625 - loss, 68.75 - loss),
        difference=None if name == "full" else (-loss, -loss - 0.4, -loss + 0.3),
        macs_fewer=1 / cost,
        latency=Latency(10.5 * cost, 9.625 * cost, 20.25 * cost, 44.5 * cost),
        kept=tuple(Spread(170 * ratio, 96 * ratio, 264 * ratio) for ratio in (1.0, *ratios)),
    )


COSTS = {"full": 1.0, "accurate": 0.7, "balanced": 0.6, "fast": 0.45}


@pytest.fixture(scope="module")
def report() -> Report:
    random = np.random.default_rng(0)
    costs, losses = random.uniform(0.4, 1, 30), random.exponential(2, 30)
    others = [name for name in COSTS if name != "full"]
    return Report(
        title="MiniLM",
        facts={"Data": "squad.json, 7 questions", "CPU": "AMD EPYC", "Date": "2026-01-02"},
        metrics=("F1", "EM"),
        example="question",
        named=tuple(named(name, cost, threshold=0.25) for name, cost in COSTS.items()),
        plot_data="other.json, 9 questions",
        points=tuple(Point(10 * c, 81 - loss, 1 / c) for c, loss in zip(costs.tolist(), losses.tolist(), strict=True)),
        front=tuple(Point(10 * cost, 81.2 - 3 * (1 - cost), 1 / cost) for cost in np.linspace(0.4, 0.9, 8).tolist()),
        peers=(Peer("ONNX Runtime INT8", 14.0, 80.9),),
        decomposition=Decomposition(384, 60.0, 25.0, 10.0, {name: 10 * COSTS[name] for name in others}),
        by_length=tuple(
            LengthGain(group, 16, 100.0, 9.0, {n: 0.9 / COSTS[n] for n in others}, {n: 1 / COSTS[n] for n in others})
            for group in ("100 tokens", "several windows")
        ),
        notes=("Measured with care.",),
    )


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(report, tmp_path_factory.mktemp("page"))


def write(report: Report, folder: Path) -> Page:
    write_report(report, folder / "report.html")
    return Page(folder / "report.html")


def numbers(cells: list[str]) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+\.?\d*", " ".join(cells).replace("\N{MINUS SIGN}", "-"))]


def test_a_page_needs_no_other_file_and_all_its_references_resolve(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert "@import" not in page.source
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    references += re.findall(r"url\(([^)]*)\)", page.source)
    assert references
    assert {reference.removeprefix("#") for reference in references} <= {v for n, v in page.attributes if n == "id"}
    assert all(reference.startswith("#") for reference in references)


def test_tables_hold_what_was_measured(report: Report, page: Page) -> None:
    figures, schedules, gains = page.tables
    full = report.named[0]
    for row, result in zip(figures[2:], report.named, strict=True):
        latency = result.latency
        expected = [*result.means, *(result.difference or ()), result.macs_fewer]
        expected += [np.mean([spread.mean for spread in result.kept[1:]]), full.latency.mean / latency.mean]
        expected += [latency.mean, latency.p50, latency.p95, latency.longest]
        assert row[0] == result.name
        np.testing.assert_allclose(numbers(row[1:]), expected, atol=0.051)
    for row, result in zip(schedules[1:], report.named, strict=True):
        thresholds = [threshold for threshold in result.config.thresholds if threshold is not None]
        np.testing.assert_allclose(sorted(numbers(row[1:])), sorted([*result.config.keep_ratios, *thresholds]))
    for row, result in zip(gains[2:], report.named[1:], strict=True):
        expected = [1 / COSTS[result.name], 0.9 / COSTS[result.name]] * 2
        np.testing.assert_allclose(numbers(row[1:]), expected, atol=0.0051)


def test_points_stand_where_their_figures_say(report: Report, page: Page) -> None:
    """In each picture of F1 against cost, wide and narrow: one affine map of F1, one of the cost's logarithm."""
    shown = [point for point in report.points if any(_title(point) in title for title, *_ in page.marks)]
    assert 10 < len(shown) < len(report.points)  # the worst are left out, and the page says so
    assert f"{len(report.points) - len(shown)} of them" in " ".join(page.texts_of("p"))
    places = {point: [(x, y) for title, x, y in page.marks if title == _title(point)] for point in shown}
    for picture, cost in enumerate(("latency_ms", "latency_ms", "macs_fewer", "macs_fewer")):
        x, y = np.array([places[point][picture] for point in shown]).T
        for position, value in ((x, np.log([getattr(point, cost) for point in shown])), (y, [p.score for p in shown])):
            fitted = np.polynomial.Polynomial.fit(value, position, 1)
            np.testing.assert_allclose(fitted(np.asarray(value)), position, atol=0.01)


def _title(point: Point) -> str:
    return f"F1 {point.score:.2f}, {point.latency_ms:.2f} ms, {point.macs_fewer:.2f}x fewer MACs"


def test_pictures_name_configurations_and_peers_and_give_the_factors(page: Page) -> None:
    texts = page.texts_of("text")
    for name in ("full", "accurate", "balanced", "fast"):
        assert texts.count(name) >= 4  # F1 against two costs, on wide and narrow pages
    assert texts.count("ONNX Runtime INT8") == 2  # its MACs are not known
    for factor in ("2.40x", "2.50x \N{RIGHTWARDS ARROW} 6.0x", "2.22x \N{RIGHTWARDS ARROW} 13.3x"):
        assert texts.count(factor) == 2
    assert any(text.startswith("after layer 0: mean 170.0, 10th to 90th") for text in page.texts_of("title"))


def test_what_comes_from_files_is_escaped(report: Report, tmp_path: Path) -> None:
    hostile = replace(
        report,
        title=HOSTILE,
        facts={"Data": HOSTILE},
        plot_data=HOSTILE,
        points=(),
        peers=(Peer(HOSTILE, 14.0, 80.9),),
        notes=(HOSTILE,),
    )
    page = write(hostile, tmp_path)
    assert "script" not in page.tags
    assert page.texts_of("h1") == page.texts_of("dd") == [HOSTILE]
    assert HOSTILE in page.texts_of("p")
    assert HOSTILE in page.texts_of("text")
    assert any(title.startswith(HOSTILE) for title in page.texts_of("title"))


def test_a_report_of_one_configuration_leaves_out_what_was_not_measured(report: Report, tmp_path: Path) -> None:
    alone = replace(report.named[2], difference=None)
    page = write(Report("MiniLM", {}, ("F1", "EM"), "question", (alone,), "squad.json", notes=report.notes), tmp_path)
    assert page.texts_of("h2") == [
        "F1 against cost",
        "What each configuration costs and gives",
        "Tokens kept",
        "How it was measured",
    ]
    assert "F1 against full" not in " ".join(page.texts_of("th"))
    assert page.tables[0][2][0] == "balanced"


def test_the_same_report_gives_the_same_bytes(report: Report, page: Page, tmp_path: Path) -> None:
    assert write(report, tmp_path).source == page.source


def test_a_report_that_cannot_be_written_leaves_what_was_there(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report("MiniLM", {}, ("F1", "EM"), "question", report.named[:1], "squad.json")
    with pytest.raises(InvalidInputError, match=r"no folder .*nowhere to write report\.html"):
        write_report(report, tmp_path / "nowhere" / "report.html")
    file = tmp_path / "report.html"
    file.write_text("old")

    def full_disk(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text.encode(encoding)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        write_report(report, file)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "old")]


coordinates = st.floats(0, 1)


@settings(max_examples=12, deadline=None)
@example([(1.0, 1.0), (1.0, 0.0), (0.5, 0.0), (0.0, 0.5)])  # at the edges
@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=8))
def test_labels_stay_inside_and_off_each_other(points: list[tuple[float, float]]) -> None:
    with drawing(880, 420) as axes:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        place_labels(axes, [Label("balanced", x, y) for x, y in points], points, "#000000")
        figure = axes.get_figure(root=True)
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        notes = [child for child in axes.get_children() if isinstance(child, Annotation)]
        boxes = [Text.get_window_extent(note, renderer) for note in notes]  # without the line to the point
        inside = axes.get_window_extent()
    assert len(boxes) == len(points)
    for i, box in enumerate(boxes):
        assert inside.x0 <= box.x0
        assert inside.x1 >= box.x1
        assert inside.y0 <= box.y0
        assert inside.y1 >= box.y1
        assert box.count_overlaps(boxes[:i]) == 0


CONTEXT = "the fox was in the box and the cat was in the hat"


@pytest.fixture(scope="module", params=["attention", "learnt"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    learnt = request.param == "learnt"
    scorers = {layer: Scorer(32, 4, (3,)) for layer in (1, 2)} if learnt else None
    configs = {"half": LengthConfig((1, 0.7, 0.4), (None, None, 0.5) if learnt else ())}
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), tiny_bert(), configs, scorers)


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    qas = [{"id": word, "question": f"what was in {word}?", "answers": [{"text": "the fox", "answer_start": 0}]}
           for word in ("the box", "it", "the hat")]  # fmt: skip
    paragraphs = [{"context": " ".join([CONTEXT] * times), "qas": qas} for times in (1, 4, 9)]
    file = tmp_path_factory.mktemp("data") / "squad <1>.json"
    file.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return file


def test_evaluate_writes_the_figures_that_it_measured(bundle: Path, squad: Path, tmp_path: Path) -> None:
    files = ("--json", str(tmp_path / "figures.json"), "--report", str(tmp_path / "report.html"))
    options = ("--bundle", str(bundle), "--data", str(squad), "--length-config", "all", "--num-threads", "1", *files)
    done = CliRunner().invoke(app, ["evaluate", *options], catch_exceptions=False)
    assert done.exit_code == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    page = Page(tmp_path / "report.html")

    learnt = "learnt" if (bundle / "significance.safetensors").exists() else "attention"
    assert {"squad <1>.json, 9 questions", learnt, "1", bundle.name} <= set(page.texts_of("dd"))
    assert "Where the speed comes from" in page.texts_of("h2")
    assert "Gain by length" in page.texts_of("h2")
    for row in page.tables[0][2:]:
        of_full, own = figures["full"], figures[row[0]]
        ms = np.array(own["question_ms"])
        differences = np.subtract(own["question_f1"], of_full["question_f1"])
        shown = numbers(row[1:])
        if row[0] != "full":
            mean, low, high = shown[2:5]
            assert low <= mean <= high
            assert mean == pytest.approx(differences.mean(), abs=0.0051)
            del shown[2:5]
        expected = [np.mean(own["question_f1"]), own["exact_match"], of_full["mean_macs"] / own["mean_macs"]]
        expected += [np.mean(own["window_kept"]), np.mean(of_full["question_ms"]) / ms.mean()]
        expected += [ms.mean(), np.median(ms), np.percentile(ms, 95), ms.max()]
        np.testing.assert_allclose(shown, expected, atol=0.051)
    lengths, kept = figures["half"]["window_lengths"], np.array(figures["half"]["window_kept"])
    for where, tokens in {"input": np.array(lengths), "after layer 0": kept[:, 0], "after layer 2": kept[:, 2]}.items():
        low, high = np.percentile(tokens, (10, 90))
        title = f"{where}: mean {tokens.mean():.1f}, 10th to 90th percentile {low:.0f} to {high:.0f}"
        assert title in page.texts_of("title")


def test_one_configuration_without_full_still_has_its_macs_beside_full(bundle: Path, squad: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)
    examples = read_squad(squad, limit=2)  # too short for a gain by length
    report = evaluation_report(
        model,
        measure_of(model.bundle),
        examples,
        {"half": evaluate(model, examples, length_config="half")},
        data="squad",
        num_threads=1,
    )
    (result,) = report.named
    full = evaluate(model, examples, length_config="full")
    assert result.macs_fewer == pytest.approx(
        full.mean_macs / evaluate(model, examples, length_config="half").mean_macs
    )
    assert result.difference is None
    assert report.by_length == ()
    assert report.decomposition is not None
    assert list(report.decomposition.dropping) == ["half"]


def test_the_threads_that_are_shown_are_those_that_were_used(
    bundle: Path, squad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_tinybert.runtime.cpu_quota.usable_cpus", lambda root: 1)
    model = LengthAdaptiveModel.from_pretrained(bundle)
    examples = read_squad(squad, limit=1)
    evaluations = {"full": evaluate(model, examples, length_config="full")}
    for number, shown in ((None, "1, by default"), (2, "2")):
        measure = measure_of(model.bundle)
        facts = evaluation_report(model, measure, examples, evaluations, data="squad", num_threads=number).facts
        assert facts["Threads"] == shown


def test_the_parts_of_the_speedup_are_of_the_windows_of_the_evaluation(bundle: Path, squad: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)
    examples = read_squad(squad, limit=2)
    evaluations = {"full": evaluate(model, examples, length_config="full", max_seq_len=64)}
    measure = QuestionAnsweringMeasure(Windowing.of(model, 64))
    report = evaluation_report(model, measure, examples, evaluations, data="squad", num_threads=1)
    assert report.decomposition is not None
    assert report.decomposition.window == 64


def test_evaluations_in_batches_are_refused(bundle: Path, squad: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=1)
    examples = read_squad(squad, limit=2)
    batched = {"full": evaluate(model, examples, length_config="full", batch_size=2)}
    with pytest.raises(InvalidInputError, match="'full' ran in batches"):
        evaluation_report(model, measure_of(model.bundle), examples, batched, data="squad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--report", "{folder}/report.html", "--batch-size", "2"), "not measured with --batch-size 2"),
        (("--report", "{folder}/nowhere/report.html"), "no folder {folder}/nowhere to write report.html to"),
    ],
)
def test_what_prevents_a_report_is_said_before_the_data_is_read(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    arguments = [option.format(folder=tmp_path) for option in options]
    done = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "none.json"), *arguments])
    assert isinstance(done.exception, InvalidInputError)
    assert message.format(folder=tmp_path) in str(done.exception)


def test_evaluate_names_the_extra_that_a_report_needs(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
    )
    arguments = ["evaluate", "--data", "none.json", "--report", str(tmp_path / "report.html")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs jinja2, which is not installed; run: pip install 'dynamic-tinybert[calibrate]'" in done.stderr
    assert "Traceback" not in done.stderr
