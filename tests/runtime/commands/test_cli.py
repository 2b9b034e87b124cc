import codecs
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.runtime import QuestionAnswerer
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.tiny import tiny_bert, tiny_bundle, tiny_tokenizer, write_tiny_bundle

CASES = Path(__file__).parents[2] / "data" / "cases"
CONTEXT = "the fox was in the box and the cat was in the hat"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), {"half": LengthConfig((1, 0.7, 0.4))})


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    qas = [{"id": str(k), "question": f"what was in {word}?", "answers": [{"text": "the fox", "answer_start": 0}]}
           for k, word in enumerate(("the box", "it"))]  # fmt: skip
    file = tmp_path / "squad.json"
    file.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    return file


def run(
    *arguments: object, stdin: str | bytes = "", blocked: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, where the modules `blocked` cannot be imported."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, **environment}
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(command, capture_output=True, input=given, check=False, env=environment)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_ask_prints_the_answer_alone_on_standard_output(bundle: Path) -> None:
    done = run("ask", "--bundle", bundle, "what was in the box?", CONTEXT)
    assert done.returncode == 0, done.stderr
    answer = QuestionAnswerer.from_pretrained(bundle)("what was in the box?", CONTEXT)["answer"]
    assert answer
    assert done.stdout == f"{answer}\n"
    assert "length configuration full" in done.stderr


def test_ask_reads_the_context_from_a_file_or_standard_input(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "context.txt"
    file.write_text(CONTEXT)
    options = ("ask", "--bundle", bundle, "what was in the box?", "--length-config", "half", "--json")
    one = run(*options, "--context-file", file)
    other = run(*options, "--context-file", "-", stdin=CONTEXT)
    for done in (one, other):
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"] != ""
        assert answer["length_config"] == "half"
        assert answer["milliseconds"] > 0


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("standard_input", [False, True])
def test_offsets_count_the_characters_of_the_file(tmp_path: Path, mark: bytes, standard_input: bool) -> None:
    """With the embedded bundle: the case has answers that it knows."""
    content = (CASES / "t_crlf.txt").read_bytes()
    assert content.count(b"\r\n") > 1
    text, file = content.decode(), tmp_path / "text.txt"
    file.write_bytes(mark + content)
    start = text.index("Ida")
    for command in ("ask", "explain"):
        given = ("-",) if standard_input else (file,)
        options = ("--length-config", "full", "--json", "--context-file", *given)
        done = run(command, "Who opened the bridge?", *options, stdin=mark + content if standard_input else b"")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        answer = found if command == "ask" else found["answer"]
        assert " ".join(answer["answer"].split()) == "Ida Kroll"
        assert (answer["start"], text[answer["start"] : answer["end"]]) == (start, answer["answer"])


def test_ask_with_a_budget(bundle: Path) -> None:
    asked = ("ask", "--bundle", bundle, "what was in the box?", CONTEXT)
    answer = json.loads(run(*asked, "--budget-ms", 60_000, "--json").stdout)
    assert list(answer) == ["score", "start", "end", "answer", "length_config", "ms", "budget_met"]
    assert (answer["length_config"], answer["budget_met"]) == ("full", True)
    done = run(*asked, "--budget-ms", 1e-4)
    assert done.stdout.strip() in CONTEXT
    assert re.search(r", length configuration (full|half), [\d.]+ ms, over the budget of 0.0001 ms\n", done.stderr)
    for options, message in (
        (("--budget-ms", 20, "--length-config", "half"), "length_config='half' together with a budget"),
        (("--budget-ms", "nan"), "budget_ms must be a finite number, not nan"),
        (("--budget-ms", -1), "budget_ms must be above 0"),
        (("--max-f1-loss", 1), "this bundle has no f1_against_full of them; calibrate the bundle"),
    ):
        done = run(*asked, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_ask_gives_several_answers(bundle: Path) -> None:
    options: dict[str, Any] = {"top_k": 3, "max_answer_len": 2, "max_seq_len": 20, "doc_stride": 4}
    options["handle_impossible_answer"] = True
    answers = QuestionAnswerer.from_pretrained(bundle)("what was in the box?", CONTEXT, **options)
    assert isinstance(answers, list)
    flags = ("--top-k", 3, "--max-answer-len", 2, "--max-seq-len", 20, "--doc-stride", 4, "--handle-impossible-answer")
    done = run("ask", "--bundle", bundle, "what was in the box?", CONTEXT, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [answer["answer"] for answer in answers]
    *about, cost = done.stderr.splitlines()
    assert len(about) == 3
    for line, answer in zip(about, answers, strict=True):
        assert f"score {answer['score']:.3f}" in line
        assert ("no answer" in line) == (answer["answer"] == "")
    assert "length configuration full" in cost
    objects = json.loads(run("ask", "--bundle", bundle, "what was in the box?", CONTEXT, *flags, "--json").stdout)
    assert [{name: found[name] for name in answer} for found, answer in zip(objects, answers, strict=True)] == answers


def test_ask_gives_a_json_list_whenever_several_may_come(bundle: Path) -> None:
    done = run("ask", "--bundle", bundle, "what?", "a", "--top-k", 2, "--json")
    assert [answer["answer"] for answer in json.loads(done.stdout)] == ["a"]


def test_ask_lets_windows_compete(bundle: Path) -> None:
    question, text = "what was in the box?", f"{CONTEXT} . " * 8
    done = run("ask", "--bundle", bundle, "--json", "--compete", "--max-seq-len", 20, "--doc-stride", 4, question, text)
    assert done.returncode == 0, done.stderr
    answerer = QuestionAnswerer.from_pretrained(bundle)
    competing, alone = (
        answerer(question, text, max_seq_len=20, doc_stride=4, compete=compete) for compete in (True, False)
    )
    assert json.loads(done.stdout).items() >= competing.items()
    assert competing["score"] != alone["score"]


def test_ask_says_where_there_is_no_answer(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the model's weights are changed by PyTorch")
    model, encoding = tiny_bert(), tiny_tokenizer().encode("what?", "a a")
    with torch.no_grad():  # all belief goes to [CLS]
        states = model.bert(torch.tensor([encoding.ids]), token_type_ids=torch.tensor([encoding.type_ids]))[0][0]
        model.qa_outputs.weight.copy_(10 * (states[0] - states[-2]).expand(2, -1))
    arguments = ("ask", "--bundle", write_tiny_bundle(tmp_path, model), "what?", "a a", "--handle-impossible-answer")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"
    assert done.stderr.startswith("no answer in the text: score 1.000, length configuration full, ")
    done = run(*arguments, "--top-k", 2)
    assert done.stdout.splitlines()[0] == ""
    assert done.stderr.splitlines()[0] == "  no answer in the text: score 1.000"


def test_several_answers_are_one_a_line(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(CONTEXT.replace(" ", "\r\n").encode())
    done = run("ask", "--bundle", bundle, "what?", "--context-file", file, "--top-k", 5)
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "what?"), "either as the second argument or with --context-file"),
        (("ask", "what?", CONTEXT, "--context-file", "x"), "either as the second argument or with --context-file"),
        (("ask", "what?", "--context-file", "/no/such/file"), "cannot read /no/such/file: No such file or directory\n"),
        (("ask", "", CONTEXT, "--bundle", "{bundle}"), "question is empty"),
        (("ask", "what?", CONTEXT, "--bundle", "{bundle}", "--length-config", "x"), "unknown length configuration 'x'"),
        (("ask", "what?", CONTEXT, "--bundle", "/no/such/bundle"), "/no/such/bundle"),
        (("evaluate", "--bundle", "{bundle}", "--data", "/no/such.json"), "/no/such.json"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*(argument.format(bundle=bundle) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("dynamic-tinybert: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("ask", "--no-such-option"), ("evaluate", "--data", "x", "--limit", "0"), ("no-such-command",)]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


def test_the_installed_command_lists_the_commands_of_all_folders() -> None:
    command = Path(sysconfig.get_path("scripts"), "dynamic-tinybert")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    words = done.stdout.split()
    assert {"ask", "evaluate", "info", "export"} <= set(words)


@pytest.mark.parametrize("missing", [("torch", "transformers"), ("transformers",)])
def test_export_names_the_extra_that_is_missing(tmp_path: Path, missing: tuple[str, ...]) -> None:
    if "torch" not in missing:
        pytest.importorskip("torch", reason="it would be named first")
    done = run("export", tmp_path, tmp_path / "bundle", blocked=missing)
    assert done.returncode == 1
    assert done.stderr.startswith("dynamic-tinybert: ")
    assert f"needs {missing[0]}, which is not installed" in done.stderr
    assert "run: pip install 'dynamic-tinybert[export]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_prints_a_line_for_each_configuration(bundle: Path, squad: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("evaluate", "--bundle", bundle, "--data", squad, "--length-config", "all", "--json", figures)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["full", "half"]
    written = json.loads(figures.read_text())
    assert len(written["half"]["question_f1"]) == 2
    assert written["half"]["mean_macs"] < written["full"]["mean_macs"]
    assert written["half"]["mean_kept"][2] < written["full"]["mean_kept"][2] == written["full"]["mean_length"]


def test_evaluate_stops_at_the_limit(bundle: Path, squad: Path, tmp_path: Path) -> None:
    scores = []
    for options in ((), ("--limit", 1)):
        figures = tmp_path / f"{len(options)}.json"
        done = run("evaluate", "--bundle", bundle, "--data", squad, "--json", figures, *options)
        assert done.returncode == 0, done.stderr
        scores.append(json.loads(figures.read_text())["full"]["question_f1"])
    everything, first = scores
    assert len(everything) == 2
    assert first == everything[:1]
    assert done.stdout.startswith("1 questions of ")


def test_evaluate_counts_the_questions_that_it_scores(bundle: Path, tmp_path: Path) -> None:
    qas = [{"id": "1", "question": "what was in it?", "answers": [{"text": "the fox", "answer_start": 0}]},
           {"id": "2", "question": "what was in the box?", "answers": []}]  # fmt: skip
    data = tmp_path / "squad.json"
    data.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    done = run("evaluate", "--bundle", bundle, "--data", data)
    assert done.stdout.startswith("1 questions of ")
    assert "1 of 2 questions have no answer (left out)" in done.stderr


def test_info_says_what_runs_and_what_the_bundle_holds(bundle: Path) -> None:
    facts = json.loads(run("info", "--bundle", bundle, "--json").stdout)
    assert facts["cpu"]["kernels"] in facts["cpu"]["kernels_available"]
    assert list(facts["bundle"]["length_configs"]) == ["full", "half"]
    assert "half" in run("info", "--bundle", bundle).stdout


def test_info_names_the_kernels_that_the_environment_asks_for(bundle: Path) -> None:
    done = run("info", "--bundle", bundle, "--json", DYNAMIC_TINYBERT_ISA="scalar")
    assert json.loads(done.stdout)["cpu"]["kernels"] == "scalar"


@pytest.mark.parametrize("arguments", [("info",), ("ask", "what?", CONTEXT)])
def test_an_unknown_instruction_set_is_an_error_of_ours(bundle: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "--bundle", bundle, DYNAMIC_TINYBERT_ISA="neon")
    assert done.returncode == 1
    assert done.stderr.startswith("dynamic-tinybert: ")
    assert "DYNAMIC_TINYBERT_ISA is 'neon'" in done.stderr
    assert "Traceback" not in done.stderr
