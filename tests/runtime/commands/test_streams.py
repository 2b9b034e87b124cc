"""Standard input and output that are not what a terminal gives, with the command line in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.commands.streams import guard_output

from support.tiny import tiny_bundle

PROGRAM = "from dynamic_tinybert.runtime.cli import main; main()"
QUESTION, CONTEXT = "who was in the box ?", "the fox of Köln 😀 was in the box"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def run(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, env={**os.environ, **environment}, timeout=120
    )


def test_output_escapes_what_its_encoding_lacks_and_stays_json(bundle: Path) -> None:
    given = ("explain", "--bundle", bundle, QUESTION, CONTEXT, "--length-config", "full")
    done = run(*given, "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    shown = json.loads(done.stdout)
    assert "Köln" in json.dumps(shown, ensure_ascii=False)
    assert "😀" in json.dumps(shown, ensure_ascii=False)
    done = run(*given, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"K\u00f6ln" in done.stdout


def test_standard_input_is_utf_8_whatever_the_locale_says(bundle: Path) -> None:
    given = ("ask", "--bundle", bundle, QUESTION, "--context-file", "-", "--json")
    text = CONTEXT + "\r\n" + "the cat was in Köln ."
    done = run(*given, stdin=text.encode(), LC_ALL="C", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.decode("latin-1"))
    assert text[answer["start"] : answer["end"]] == answer["answer"]  # counted with the line's own end
    done = run(*given, stdin=text.encode("latin-1", "ignore"))
    assert done.returncode == 1
    assert done.stderr.startswith(b"dynamic-tinybert: cannot read standard input as UTF-8 text: ")


@pytest.fixture
def stdout(request: pytest.FixtureRequest) -> Iterator[int]:
    """A file descriptor that nothing can be written to."""
    if request.param == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    yield descriptor
    os.close(descriptor)


SEVERAL = [("info",), ("ask", QUESTION, CONTEXT), ("evaluate", "--data", "{data}"), ("--help",)]


@pytest.mark.parametrize("arguments", SEVERAL)
@pytest.mark.parametrize(
    ("stdout", "code", "message"),
    [
        ("full", 1, "dynamic-tinybert: standard output cannot be written: No space left on device\n"),
        ("unread", 141, ""),
    ],
    indirect=["stdout"],
)
def test_output_that_cannot_be_written_is_an_exit_code(
    bundle: Path, tmp_path: Path, arguments: tuple[str, ...], stdout: int, code: int, message: str
) -> None:
    answers = [{"text": "the fox", "answer_start": 0}]
    paragraph = {"context": CONTEXT, "qas": [{"id": "1", "question": QUESTION, "answers": answers}]}
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    own = [argument.format(data=data) for argument in arguments]
    bundles = [] if own == ["--help"] else ["--bundle", str(bundle)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *own, *bundles], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == code
    said = [line for line in done.stderr.splitlines(keepends=True) if line.startswith("dynamic-tinybert")]
    assert "".join(said) == message
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_closed_standard_streams_are_errors(bundle: Path) -> None:
    script = f'"{sys.executable}" -c "{PROGRAM}"'
    for command, what in (
        (f"{script} info --bundle '{bundle}' >&-", "standard output cannot be written: it is closed"),
        (f"{script} ask q --context-file - <&-", "standard input is closed"),
    ):
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert what in done.stderr


def test_a_long_output_ends_when_its_reader_does() -> None:
    script = f"import sys; {guard_output.__module__.join(('from ', ' import guard_output'))}; guard_output(); " + (
        "[print('line', k) for k in range(1_000_000)]"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141
