"""Training of classifiers and rerankers from end to end."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dynamic_tinybert.export import export_model
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime import Reranker, TextClassifier
from dynamic_tinybert.runtime.common.errors import CheckpointError, DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.training import TrainingOptions, cli, train
from dynamic_tinybert.training.batches import TrainingRow, collate, plan_rows
from dynamic_tinybert.training.tasks.sequence_classification.reader import TextReader

from support.classifiers import save_classifier, texts, tiny_classifier
from support.tiny import tiny_tokenizer

RANKING = "sequence_classification"
LEARNING = TrainingOptions(max_steps=80, batch_size=32, learning_rate=4e-3, dropout=0.0)
FEW = TrainingOptions(max_steps=3, batch_size=8)


def labelled_texts(file: Path, count: int = 120) -> Path:
    """Texts whose class is whether they hold the word `who`."""
    some = texts(count, words=(3, 9))
    names = ("without", "with")
    file.write_text("".join(f"{text}\t{names['who' in text.split()]}\n" for text in some))
    return file


def rankings(file: Path, count: int = 60, documents: int = 4) -> Path:
    """Queries of one letter, each with one document that holds the letter twice."""
    random = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        letter, *others = random.permutation(list("abcdefgh"))
        found = [" ".join(random.choice(others, 6)) for _ in range(documents)]
        right = int(random.integers(documents))
        found[right] = f"{letter} {found[right]} {letter}"
        lines.append(json.dumps({"query": letter, "documents": found, "relevant": [right]}))
    file.write_text("\n".join(lines) + "\n")
    return file


def names_in(folder: Path, labels: Sequence[str]) -> Path:
    """A checkpoint of a tiny classifier with these labels."""
    config = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    return save_classifier(folder, tiny_classifier(len(labels), **config))


def test_a_classifier_learns_its_classes(tmp_path: Path) -> None:
    checkpoint, data = names_in(tmp_path / "tiny", ("without", "with")), labelled_texts(tmp_path / "texts.tsv")
    result = train(checkpoint, tmp_path / "new", data, options=LEARNING, validation=data)
    assert result.metric == "accuracy"
    assert result.after[0].score > max(85, result.before[0].score + 10)
    card = (tmp_path / "new" / "README.md").read_text()
    assert "BertForSequenceClassification" in card
    assert "pipeline_tag: text-classification" in card
    assert "| Configuration | before: MACs, x fewer | accuracy |" in card

    export_model(tmp_path / "new", tmp_path / "bundle", precision="fp32")
    classifier = TextClassifier.from_pretrained(tmp_path / "bundle")
    some = [text for text in texts(120, words=(3, 9)) if "who" in text.split()][:20]
    found = [labels[0]["label"] for labels in classifier.classify_batch(some)]
    assert found.count("with") >= 15


def test_a_reader_becomes_a_reranker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = rankings(tmp_path / "groups.jsonl")
    lines: list[str] = []
    result = train(
        tiny_checkpoint,
        tmp_path / "new",
        data,
        task=RANKING,
        options=replace(LEARNING, max_steps=150),
        validation=data,
        say=lines.append,
    )
    assert "Training on 216 windows of 54 examples, 150 steps of 32, objective fine-tune" in lines
    assert result.metric == "nDCG@10"
    assert result.after[0].score > max(85, result.before[0].score + 10)
    export_model(tmp_path / "new", tmp_path / "bundle", precision="fp32")
    reranker = Reranker.from_pretrained(tmp_path / "bundle")
    assert reranker.rank("a", ["b c d e f g", "a b c d e f g a", "h h h e c b"])[0]["corpus_id"] == 1


@pytest.mark.parametrize("objective", ["distill-answers", "distill-layers", "length-drop"])
def test_shared_objectives_train_rerankers(tmp_path: Path, objective: str) -> None:
    checkpoint = save_classifier(tmp_path / "student", tiny_classifier(1))
    teacher = save_classifier(tmp_path / "teacher", tiny_classifier(1, seed=1)) if "distill" in objective else None
    data = rankings(tmp_path / "groups.jsonl")
    options = replace(LEARNING, objective=objective, max_steps=40)
    result = train(checkpoint, tmp_path / "new", data, options=options, teacher=teacher)
    losses = [sum(parts.values()) for parts in result.losses]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_a_head_may_learn_faster(tmp_path: Path) -> None:
    checkpoint = save_classifier(tmp_path / "tiny", tiny_classifier(1))
    options = replace(FEW, learning_rate=1e-6, head_learning_rate=1e-2)
    train(checkpoint, tmp_path / "new", rankings(tmp_path / "groups.jsonl"), options=options)
    before, after = (load_checkpoint(folder).model.state_dict() for folder in (checkpoint, tmp_path / "new"))
    moved = {name: float((after[name] - tensor).abs().max()) for name, tensor in before.items()}
    heads = {name for name in moved if name.startswith(("classifier.", "bert.pooler."))}
    assert len(heads) == 4
    assert min(moved[name] for name in heads) > 1e-3
    assert max(moved[name] for name in moved.keys() - heads) < 1e-4


def test_a_group_is_never_split() -> None:
    rows = [
        TrainingRow(np.zeros(length, np.int32), 2, {"grade": 1.0}, group)
        for group, sizes in enumerate(([5, 9, 7], [4, 4], [30], [6, 6, 6, 6]))
        for length in sizes
    ]
    plan = plan_rows(rows, 8, epochs=3, max_steps=None, seed=0)
    assert len(plan) == 6  # two groups a step, as the largest has four rows
    for step in plan:
        groups = [rows[i].group for i in step]
        for group in set(groups):
            assert groups.count(group) == sum(row.group == group for row in rows)
        changes = sum(a != b for a, b in pairwise(groups))
        assert changes == len(set(groups)) - 1  # neighbours, as the losses need them
    assert sorted(i for step in plan[:2] for i in step) == list(range(10))
    batch = collate([rows[i] for i in plan[0]])
    assert batch["group"].tolist() == [rows[i].group for i in plan[0]]
    assert plan_rows(rows, 1, epochs=1, max_steps=None, seed=0) != plan  # a group is a step of its own


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    score, regression = Labels(("LABEL_0",)), Labels(("LABEL_0",), "regression")
    classes = Labels(("a", "b"))
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(
            json.dumps(row)
            for row in (
                {"text": "who", "label": 0.5},
                {"text": "what", "label": 7},
                {"text": "where"},
                {"text": " ", "label": 1},
                {"text": "the " * 40, "label": 1},
            )
        )
    )
    read = TextReader(tokenizer, score, 128, 16).read_training(tmp_path / "texts.jsonl", None, strict=False)
    assert len(read.examples) == 2
    assert len(read.lines) == 4
    assert any("the label 7 is not from 0 to 1" in line for line in read.lines)
    assert any("1 of 5 texts are longer than the model reads (cut at the end" in line for line in read.lines)
    assert max(map(len, TextReader(tokenizer, score, 128, 16).rows(read.examples))) == 16
    numbers = TextReader(tokenizer, regression, 128, None).read_training(tmp_path / "texts.jsonl", None, strict=False)
    assert [row.labels for row in TextReader(tokenizer, regression, 128, None).rows(numbers.examples)] == [
        {"number": 0.5},
        {"number": 7.0},
        {"number": 1.0},
    ]
    with pytest.raises(DataError, match=r"texts\.jsonl, .*leave out `strict`"):
        TextReader(tokenizer, score, 128, 16).read_training(tmp_path / "texts.jsonl", None, strict=True)

    (tmp_path / "r.jsonl").write_text('{"query": "who", "documents": ["the", " "], "relevant": [1]}\n')
    with pytest.raises(DataError, match="holds no text with a label to train on"):
        TextReader(tokenizer, score, 128, None).read_training(tmp_path / "r.jsonl", None, strict=False)
    with pytest.raises(InvalidInputError, match="this model has 2 outputs; a ranking needs one score"):
        TextReader(tokenizer, classes, 128, None).read_training(tmp_path / "r.jsonl", None, strict=False)
    for wrong in (129, 7):
        with pytest.raises(InvalidInputError, match="max_seq_len"):
            TextReader(tokenizer, score, 128, wrong)


def test_what_does_not_fit_together_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = rankings(tmp_path / "groups.jsonl")
    reranker = save_classifier(tmp_path / "reranker", tiny_classifier(1))
    for objective in ("scorers", "front", "straight-through", "soft-masks"):
        with pytest.raises(InvalidInputError, match=f"{objective} is not for sequence_classification.*calibrate"):
            train(reranker, tmp_path / "new", data, options=replace(FEW, objective=objective))
    with pytest.raises(InvalidInputError, match="labels are for a new head"):
        train(reranker, tmp_path / "new", data, labels=["a", "b"])
    with pytest.raises(CheckpointError, match="it is for question_answering with 2 outputs, and the student for"):
        train(
            reranker,
            tmp_path / "new",
            data,
            teacher=tiny_checkpoint,
            options=replace(FEW, objective="distill-answers"),
        )
    assert not (tmp_path / "new").exists()


def test_the_command_makes_a_head_for_named_classes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(cli.train)
    data = labelled_texts(tmp_path / "texts.tsv")
    arguments = [str(tiny_checkpoint), str(tmp_path / "new"), "--data", str(data), "--task", RANKING]
    options = ["--labels", "without,with", "--max-steps", "2", "--batch-size", "4", "--limit", "20"]
    done = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "Training on 20 windows of 20 examples, 2 steps of 4, objective fine-tune" in done.stderr
    made = load_checkpoint(tmp_path / "new")
    assert made.task.name == RANKING
    assert made.model.config.id2label == {0: "without", 1: "with"}
