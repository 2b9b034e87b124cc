"""The commands for classifiers: rank, classify, evaluate, info."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dynamic_tinybert.runtime import Reranker, TextClassifier
from dynamic_tinybert.runtime.bundles.hub import default_bundle, default_reranker
from dynamic_tinybert.runtime.cli import app
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.classifiers import classifier_bundle, texts, tiny_classifier
from support.rankings import put_heads, random_head
from support.tiny import tiny_bundle

QUERY = "who was in the b"
HALF = {"half": LengthConfig((0.5, 0.2, 0.2))}


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("r"), tiny_classifier(1), HALF)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {"id2label": {0: "bad", 1: "fair", 2: "good"}}
    return classifier_bundle(tmp_path_factory.mktemp("c"), tiny_classifier(**names), HALF)


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def test_rank(ranker: Path, tmp_path: Path) -> None:
    documents = texts(7)
    (tmp_path / "d.txt").write_text("\ufeff" + "\r\n".join(documents) + "\r\n", newline="")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in documents))
    expected = Reranker.from_pretrained(ranker).rank(QUERY, documents, 3, True, length_config="half")
    options = ("--bundle", ranker, "--top-n", 3, "--length-config", "half")
    done = run("rank", QUERY, "--documents", tmp_path / "d.txt", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{d['score']:.4f}\t{d['corpus_id']}\t{d['text']}" for d in expected]
    assert "7 documents, length configuration half, " in done.stderr
    table = run("rank", QUERY, "--documents", tmp_path / "d.jsonl", "--column", "body", "--json", *options)
    lines = run("rank", QUERY, "--documents", "-", "--json", *options, stdin="\n".join(documents))
    for done in (table, lines):
        found = json.loads(done.stdout)
        assert [own["corpus_id"] for own in found] == [own["corpus_id"] for own in expected]
        assert [own["text"] for own in found] == [own["text"] for own in expected]


def test_rank_drops_documents_or_not(tmp_path: Path) -> None:
    bundle = put_heads(classifier_bundle(tmp_path / "b", tiny_classifier(1)), {"full": random_head(1, {3: 0.0})})
    documents = texts(40)
    (tmp_path / "d.txt").write_text("\n".join(documents))
    found = []
    for drop in (True, False):
        expected = Reranker.from_pretrained(bundle).rank(QUERY, documents, 3, True, drop_documents=drop)
        options = ("--bundle", bundle, "--top-n", 3, "--json", *(() if drop else ("--no-drop",)))
        done = run("rank", QUERY, "--documents", tmp_path / "d.txt", *options)
        assert json.loads(done.stdout) == expected
        found.append(expected)
    assert found[0] != found[1]  # the head predicts nothing in particular


def test_rank_refuses(ranker: Path, classes: Path, tmp_path: Path) -> None:
    empty, gap, table = tmp_path / "e.txt", tmp_path / "g.txt", tmp_path / "t.jsonl"
    empty.write_text("")
    gap.write_text("a\n\nb\n")
    (tmp_path / "first.txt").write_text("\na\n")
    table.write_text('{"text": "a"}\n{"body": "b"}\n')
    answering = tiny_bundle(tmp_path / "qa")
    for bundle, file, error, message in (
        (ranker, empty, InvalidInputError, "e.txt holds no document"),
        (ranker, gap, InvalidInputError, "document 1 of 3, counted from 0: document is empty"),
        (ranker, tmp_path / "first.txt", InvalidInputError, "document 0 of 2, counted from 0: document is empty"),
        (ranker, table, DataError, r"row 2 \(line 2\): no text in the column 'text'"),
        (ranker, tmp_path / "none.txt", DataError, "cannot read .*none.txt"),
        (classes, gap, InvalidInputError, "use TextClassifier for it"),
        (answering, gap, InvalidInputError, "use QuestionAnswerer for it"),
    ):
        done = run("rank", QUERY, "--documents", file, "--bundle", bundle)
        assert done.exit_code == 1
        with pytest.raises(error, match=message):
            raise done.exception or AssertionError


def test_classify(classes: Path) -> None:
    classifier = TextClassifier.from_pretrained(classes)
    done = run("classify", "the a was", "--bundle", classes, "--length-config", "half")
    (expected,) = classifier.classify_batch("the a was", length_config="half")
    assert done.stdout.splitlines() == [f"{own['score']:.4f}\t{own['label']}" for own in expected]
    assert "length configuration half, " in done.stderr
    pair = run("classify", "who", "--text-pair", "the a", "--bundle", classes, "--top-k", 1, "--json")
    (found,) = json.loads(pair.stdout)
    assert found == classifier({"text": "who", "text_pair": "the a"})


def test_evaluate_texts(classes: Path, tmp_path: Path) -> None:
    some = texts(20)
    labels = [own[0]["label"] for own in TextClassifier.from_pretrained(classes).classify_batch(some)]
    file, figures = tmp_path / "t.tsv", tmp_path / "f.json"
    file.write_text("".join(f"{text}\t{label}\n" for text, label in zip(some, labels, strict=True)) + "x\tbest\n")
    done = run("evaluate", "--data", file, "--bundle", classes, "--length-config", "all", "--json", figures)
    assert done.exit_code == 0, done.exception
    header, columns, full, half = done.stdout.splitlines()
    assert header == f"21 texts of {file}, scored by labels and agreement, bundle {classes}"
    assert columns.split() == [
        "configuration",
        "accuracy",
        "tokens",
        "MMACs",
        "p50",
        "ms",
        "p95",
        "ms",
        "accuracy",
        "against",
        "full",
    ]
    assert full.split()[0] == "full"
    assert half.split()[0] == "half"
    assert half.endswith("]")
    written = json.loads(figures.read_text())
    assert written["full"]["scores"][:20] == [100] * 20
    assert written["half"]["accuracy"] == pytest.approx(float(half.split()[1]), abs=0.01)
    assert "1 of 21 texts have a label that the model does not have (scored by agreement with full)" in done.stderr
    strict = run("evaluate", "--data", file, "--bundle", classes, "--strict")
    assert isinstance(strict.exception, DataError)
    report = run("evaluate", "--data", file, "--bundle", classes, "--report", tmp_path / "r.html")
    assert report.exit_code == 0, report.exception
    assert "accuracy against cost" in (tmp_path / "r.html").read_text()
    windows = run("evaluate", "--data", file, "--bundle", classes, "--max-seq-len", 32)
    assert "for which there is no --max-seq-len" in str(windows.exception)


def test_evaluate_rankings(ranker: Path, classes: Path, tmp_path: Path) -> None:
    documents = texts(12)
    file = tmp_path / "r.jsonl"
    rows = [{"query": query, "documents": documents, "relevant": [i]} for i, query in enumerate(texts(3, 5, (2, 4)))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("evaluate", "--data", file, "--bundle", ranker, "--length-config", "all", "--limit", 2)
    assert done.exit_code == 0, done.exception
    header, columns, full, half = done.stdout.splitlines()
    assert header.startswith(f"2 queries of {file}")
    assert columns.split() == [
        "configuration",
        "ndcg@10",
        "mrr@10",
        "p50",
        "ms",
        "p95",
        "ms",
        "ndcg@10",
        "against",
        "full",
    ]
    assert (full.split()[0], half.split()[0]) == ("full", "half")
    refused = run("evaluate", "--data", file, "--bundle", classes)
    assert "a ranking needs one score" in str(refused.exception)
    strict = run("evaluate", "--data", file, "--bundle", ranker, "--strict")
    assert isinstance(strict.exception, InvalidInputError)
    assert f"{file} holds rankings, which are refused if the model cannot read a text" in str(strict.exception)
    bad = rows[1] | {"id": "second", "documents": [*documents[:3], "", *documents[4:]]}
    file.write_text("".join(json.dumps(row) + "\n" for row in (rows[0], bad)))
    faulty = run("evaluate", "--data", file, "--bundle", ranker)
    with pytest.raises(DataError, match=r"^ranking second: document 3 of 12, counted from 0: document is empty"):
        raise faulty.exception or AssertionError


def test_evaluate_without_a_bundle_takes_the_one_for_the_task(tmp_path: Path) -> None:
    """For rankings the embedded reranker, also for texts if the task is named."""
    rankings, pairs, questions = tmp_path / "r.jsonl", tmp_path / "t.tsv", tmp_path / "q.jsonl"
    rankings.write_text('{"query": "who wrote it?", "documents": ["Ada wrote it.", "It rained."], "relevant": [0]}\n')
    pairs.write_text("who wrote it?\tAda wrote it.\t1\n")
    text = "Ada wrote it."
    answers = {"text": ["Ada"], "answer_start": [0]}
    questions.write_text(json.dumps({"question": "Who wrote it?", "context": text, "answers": answers}) + "\n")
    reranker, answering = str(default_reranker()), str(default_bundle())
    named = ("--task", "sequence_classification")
    for data, options, bundle in (
        (rankings, (), reranker),
        (rankings, named, reranker),
        (pairs, named, reranker),
        (questions, (), answering),
        (questions, ("--task", "question_answering"), answering),
        (questions, ("--task", "question_answering", "--bundle", answering), answering),
        (rankings, (*named, "--bundle", reranker), reranker),
    ):
        done = run("evaluate", "--data", data, "--length-config", "full", *options)
        assert done.exit_code == 0, done.exception
        assert done.stdout.splitlines()[0].endswith(f", bundle {bundle}")


def test_evaluate_names_what_does_not_fit(ranker: Path, tmp_path: Path) -> None:
    rankings, answering = tmp_path / "r.jsonl", tiny_bundle(tmp_path / "qa")
    rankings.write_text('{"query": "who", "documents": ["a", "b"], "relevant": [0]}\n')
    holds = "holds rankings, and .* is a bundle for 'question_answering'; give the bundle of a reranker"
    for options, message in (
        (("--bundle", ranker, "--task", "question_answering"), "'sequence_classification', and --task is 'question_an"),
        (
            ("--bundle", answering, "--task", "sequence_classification"),
            "'question_answering', and --task is 'sequence_",
        ),
        (("--bundle", answering), holds),
        (("--task", "question_answering"), holds),
        (("--bundle", ranker, "--max-answer-len", 5), "for which there is no --max-answer-len"),
        (("--max-seq-len", 5), "is a bundle of a classifier, for which there is no --max-seq-len"),
    ):
        done = run("evaluate", "--data", rankings, *options)
        with pytest.raises(InvalidInputError, match=message):
            raise done.exception or AssertionError


def test_rankings_are_evaluated_whatever_the_activation(ranker: Path, tmp_path: Path) -> None:
    """The order is that of the logits."""
    tanh = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}
    file, bundle = tmp_path / "r.jsonl", classifier_bundle(tmp_path / "b", tiny_classifier(1, **tanh))
    file.write_text(json.dumps({"query": "who", "documents": texts(12), "relevant": [3]}) + "\n")
    found = []
    for own in (ranker, bundle):
        done = run("evaluate", "--data", file, "--bundle", own, "--json", tmp_path / "f.json")
        assert done.exit_code == 0, done.exception
        found.append(json.loads((tmp_path / "f.json").read_text())["full"]["orders"])
    assert found[0] == found[1]


def test_evaluate_scores(ranker: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,text_pair,label\n" + "".join(f"who,{text},{i}\n" for i, text in enumerate(texts(5))))
    done = run("evaluate", "--data", file, "--bundle", ranker)
    assert done.exit_code == 0, done.exception
    _, columns, full = done.stdout.splitlines()
    assert columns.split()[:3] == ["configuration", "closeness", "correlation"]
    assert float(full.split()[1]) == pytest.approx(100, abs=0.01)


def test_info_names_the_task(classes: Path) -> None:
    assert json.loads(run("info", "--bundle", classes, "--json").stdout)["bundle"]["task"] == "sequence_classification"
