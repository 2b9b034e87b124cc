import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from dynamic_tinybert.runtime import ExplainedWindow, Explanation, LengthAdaptiveModel, LengthConfig, explain
from dynamic_tinybert.runtime.tasks.question_answering.explanation_view import show

from support.tiny import tiny_bundle

QUESTION = "what was in the box?"
SHORT = "the fox, and 1 cat, was in the box. the hat was in it."
LONG = " ".join(f"the {word} was in the {word[::-1]}, and in {k}." for k, word in enumerate(["fox", "cat", "hat"] * 5))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return tiny_bundle(folder, {"drops": LengthConfig((0.9, 0.6, 0.3))})


@pytest.fixture(scope="module")
def model(bundle: Path) -> LengthAdaptiveModel:
    return LengthAdaptiveModel.from_pretrained(bundle)


def shown(explanation: Explanation, width: int = 80, **environment: str) -> str:
    """What `show` prints on a terminal of this environment."""
    file = StringIO()
    show(explanation, Console(file=file, force_terminal=True, width=width, height=25, _environ=environment))
    return file.getvalue()


def survivors(window: ExplainedWindow, segment: str, layer: int) -> list[str]:
    words = (word for word in window.words if word.segment == segment)
    return [word.text for word in words if word.dropped_at is None or word.dropped_at > layer]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s…]", text)


COLOURLESS = pytest.mark.parametrize("environment", [{"TERM": "xterm-256color", "NO_COLOR": "1"}, {"TERM": "dumb"}])


@COLOURLESS
@pytest.mark.parametrize("context", [SHORT, LONG])
def test_without_colours_each_layer_shows_its_survivors(
    model: LengthAdaptiveModel, context: str, environment: dict[str, str]
) -> None:
    explanation = explain(model, QUESTION, context, length_config="drops")
    output = Text.from_ansi(shown(explanation, **environment)).plain
    blocks = re.findall(
        r"^layer (\d): (\d+) of (\d+) tokens \((\d+) %\)\nquestion  (.*)\n((?:(?:context|  ).*\n?)+)", output, re.M
    )
    assert len(blocks) == 3 * len(explanation.windows)
    windows = [window for window in explanation.windows for _ in range(3)]
    for index, (window, block) in enumerate(zip(windows, blocks, strict=True)):
        layer, kept, length, percent = map(int, block[:4])
        assert (layer, kept, length) == (index % 3, window.kept[layer], len(window.tokens))
        assert percent == round(100 * kept / length)
        assert words_of(block[4]) == survivors(window, "question", layer)
        assert words_of(block[5].removeprefix("context")) == survivors(window, "context", layer)


def test_what_is_dropped_becomes_an_ellipsis_in_its_place(model: LengthAdaptiveModel) -> None:
    explanation = explain(model, QUESTION, "the cat, the hat.\n\nthe-box", length_config="full")
    (window,) = explanation.windows
    dropped = {"cat": 1, "hat": 1, ".": 1, "-": 1}  # two of them side by side
    words = tuple(replace(word, dropped_at=dropped.get(word.text)) for word in window.words)
    window = replace(window, kept=(*window.kept[:1], len(window.tokens) - 1, len(window.tokens) - 1), words=words)
    config = LengthConfig((1, 0.9, 0.8))
    output = shown(replace(explanation, windows=(window,), length_config=config), TERM="dumb")
    assert output.count("context   the …, the … the…box\n") == 2


def test_with_colours_each_word_has_that_of_the_layer_that_dropped_it(model: LengthAdaptiveModel) -> None:
    explanation = explain(model, QUESTION, SHORT, length_config="drops")
    (window,) = explanation.windows
    output = Text.from_ansi(shown(explanation, width=200, TERM="xterm", COLORTERM="truecolor"))
    lines = list(output.split())
    console = Console()
    colours = {
        int(line.plain[6]): line.get_style_at_offset(console, 0).color
        for line in lines
        if line.plain.startswith("layer ")
    }
    assert list(colours) == [0, 1, 2]
    assert len(set(colours.values())) == 3
    assert None not in colours.values()
    for segment, source in (("question", QUESTION), ("context", SHORT)):
        (line,) = (line for line in lines if line.plain.startswith(segment))
        assert line.plain[10:] == source
        for word in window.words:
            if word.segment == segment:
                style = line.get_style_at_offset(console, 10 + word.start)
                assert style.color == (None if word.dropped_at is None else colours[word.dropped_at])
                assert bool(style.bold) == (word.dropped_at is None)
                start, end = explanation.answer["start"], explanation.answer["end"]
                assert bool(style.underline) == (segment == "context" and start <= word.start < end)


@pytest.mark.parametrize("terminal", ["xterm", "xterm-256color"])
def test_layers_differ_in_poor_terminals_too(model: LengthAdaptiveModel, terminal: str) -> None:
    explanation = explain(model, QUESTION, SHORT, length_config="drops")
    labels = re.findall(r"\x1b\[([\d;]+)mlayer \d", shown(explanation, TERM=terminal))
    assert len(set(labels)) == 3


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
@pytest.mark.parametrize("width", [25, 60])
def test_lines_fit_the_terminal(model: LengthAdaptiveModel, width: int, environment: dict[str, str]) -> None:
    explanation = explain(model, QUESTION, LONG + " 日本 🙂" * 8, length_config="drops")
    lines = Text.from_ansi(shown(explanation, width=width, **environment)).split()
    assert max(line.cell_len for line in lines) <= width


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_each_window_is_shown_and_the_one_with_the_answer_marked(
    model: LengthAdaptiveModel, environment: dict[str, str]
) -> None:
    explanation = explain(model, QUESTION, LONG, length_config="drops")
    count = len(explanation.windows)
    output = Text.from_ansi(shown(explanation, **environment)).plain
    titles = re.findall(r"^window (\d) of (\d), characters (\d+)-(\d+)(: the answer is from here)?$", output, re.M)
    for index, (window, title) in enumerate(zip(explanation.windows, titles, strict=True)):
        assert [int(number) for number in title[:2]] == [index + 1, count]
        context = [word for word in window.words if word.segment == "context"]
        assert [int(number) for number in title[2:4]] == [context[0].start, context[-1].end]
        assert bool(title[4]) == (index == explanation.answer_window)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_full_is_said_to_drop_nothing(model: LengthAdaptiveModel, environment: dict[str, str]) -> None:
    explanation = explain(model, QUESTION, SHORT, length_config="full")
    output = shown(explanation, **environment)
    assert f"nothing is dropped: every layer passes on all {len(explanation.windows[0].tokens)} tokens" in output
    assert "…" not in output
    assert "fewer" not in output


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_a_text_cannot_command_the_terminal(model: LengthAdaptiveModel, environment: dict[str, str]) -> None:
    context = SHORT.replace("fox", "f\x1b[2Jox\x07\x9b").replace("hat", "h\u202eat") + " [red]it[/red] \x1b]0;x\x07"
    explanation = explain(model, QUESTION, context, length_config="drops")
    output = shown(explanation, **environment)
    assert not set(output) & {"\x07", "\x9b", "\u202e"}
    assert set(re.findall(r"\x1b.?", output)) <= {"\x1b["}
    assert "\x1b[2J" not in output


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = "from dynamic_tinybert.runtime.cli import main; main()"
    command = [sys.executable, "-c", program, "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "TERM": "xterm"})


def test_the_command_prints_no_colours_into_a_pipe(bundle: Path, model: LengthAdaptiveModel) -> None:
    done = run(QUESTION, SHORT, "--length-config", "drops", "--bundle", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shown(explain(model, QUESTION, SHORT, length_config="drops"), TERM="dumb")
    assert "\x1b" not in done.stdout


def test_the_command_prints_json_alone(bundle: Path, model: LengthAdaptiveModel, tmp_path: Path) -> None:
    file = tmp_path / "context.txt"
    file.write_text(LONG, encoding="utf-8")
    done = run(QUESTION, "--context-file", file, "--length-config", "drops", "--bundle", bundle, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    explanation = explain(model, QUESTION, LONG, length_config="drops").to_dict()
    assert json.loads(done.stdout) == json.loads(json.dumps(explanation))


def test_an_error_is_one_line_and_exit_code_1(bundle: Path) -> None:
    done = run(QUESTION, SHORT, "--length-config", "x", "--bundle", bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dynamic-tinybert: unknown length configuration 'x'; this bundle has: full, drops\n"
