import json
from pathlib import Path

import pytest
import torch

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training.batches import collate, plan_batches
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered


@pytest.fixture
def tokenize(tiny_checkpoint: Path) -> WindowTokenizer:
    return WindowTokenizer(tiny_checkpoint / "tokenizer.json")


def edited(questions: Path, folder: Path, **answer: object) -> Path:
    """The questions with another first answer."""
    content = json.loads(questions.read_text())
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [answer] if answer else []
    (folder / "edited.json").write_text(json.dumps(content))
    return folder / "edited.json"


def test_marked_tokens_are_the_answer(questions: Path, tokenize: WindowTokenizer) -> None:
    examples = read_answered(questions).examples
    for example in examples:
        (window,) = answered_rows(Windowing(tokenize, 128), [example])
        (encoded,) = tokenize(example.question, example.context, max_seq_len=128, doc_stride=64)
        first, last = (
            encoded.encoding.offsets[window.labels["start_positions"]],
            encoded.encoding.offsets[window.labels["end_positions"]],
        )
        assert example.context[first[0] : last[1]] == example.answers[0]
        assert first[0] == example.answer_starts[0]  # and not the same text elsewhere
        assert window.second_segment == encoded.context.start
        assert window.ids.tolist() == encoded.encoding.ids


def test_windows_without_the_whole_answer_point_to_their_first_token(
    questions: Path, tokenize: WindowTokenizer
) -> None:
    without = 0
    for example in read_answered(questions).examples:
        windows = answered_rows(Windowing(tokenize, 128, 30), [example])
        encoded = tokenize(example.question, example.context, max_seq_len=30, doc_stride=15)
        assert len(windows) == len(encoded)
        start = int(str(example.answer_starts[0]))
        stop = start + len(example.answers[0])
        for window, own in zip(windows, encoded, strict=True):
            offsets = own.encoding.offsets[own.context]
            holds = offsets[0][0] <= start and stop <= offsets[-1][1]
            assert (window.labels["start_positions"] > 0) == (window.labels["end_positions"] > 0) == holds
            without += not holds
    assert without > 10


def test_blanks_around_an_answer_do_not_matter(questions: Path, tmp_path: Path, tokenize: WindowTokenizer) -> None:
    example = read_answered(questions).examples[0]
    start = int(str(example.answer_starts[0]))
    file = edited(questions, tmp_path, text=f" {example.answers[0]} ", answer_start=start - 1)
    (plain,) = answered_rows(Windowing(tokenize, 128), [example])
    (blank,) = answered_rows(Windowing(tokenize, 128), read_answered(file).examples[:1])
    assert plain.labels == blank.labels
    assert plain.labels["start_positions"] > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "has no answer"),
        (
            {"text": "1 1", "answer_start": 0},
            "edited.json, question '0': the answer '1 1' is not at its answer_start 0",
        ),
        ({"text": "the", "answer_start": -3}, "answer_start -3"),
        ({"text": "the"}, "'the' has no answer_start, and occurs"),
        ({"text": "the", "answer_start": "0"}, "answer_start '0'"),
    ],
)
def test_answers_that_are_not_there_are_skipped_or_refused(
    questions: Path, tmp_path: Path, answer: dict[str, object], message: str
) -> None:
    file = edited(questions, tmp_path, **answer)
    with pytest.raises(DataError, match=message):
        read_answered(file, strict=True)
    read = read_answered(file)
    assert [example.id for example in read.examples] == [str(k) for k in range(1, 60)]
    ((line,), (finding,)) = read.lines, read.findings
    assert finding.id == "0"
    assert line.startswith("edited.json: 1 of 60 questions ")
    assert line.endswith(f"the first is {finding}")


def test_unanswerable_questions_point_to_their_first_token(
    questions: Path, tmp_path: Path, tokenize: WindowTokenizer
) -> None:
    content = json.loads(questions.read_text())
    question = content["data"][0]["paragraphs"][0]["qas"][0]
    question |= {"is_impossible": True, "plausible_answers": question["answers"], "answers": []}
    (tmp_path / "v2.json").write_text(json.dumps(content))
    read = read_answered(tmp_path / "v2.json")
    assert (len(read.examples), read.findings) == (60, [])
    windows = answered_rows(Windowing(tokenize, 128, 30), read.examples[:1])
    assert len(windows) > 1
    assert {tuple(window.labels.values()) for window in windows} == {(0, 0)}


def test_a_misplaced_answer_is_trained_where_its_text_stands_once(
    questions: Path, tmp_path: Path, tokenize: WindowTokenizer
) -> None:
    example = read_answered(questions).examples[0]
    start = int(str(example.answer_starts[0]))
    begin = start - len("k was in ")
    phrase = example.context[begin : start + len(example.answers[0])]
    assert example.context.count(phrase) == 1
    (right,) = answered_rows(
        Windowing(tokenize, 128),
        read_answered(edited(questions, tmp_path, text=phrase, answer_start=begin)).examples[:1],
    )
    read = read_answered(edited(questions, tmp_path, text=phrase.replace(" ", "  "), answer_start=start))
    (moved,) = answered_rows(Windowing(tokenize, 128), read.examples[:1])
    assert moved.labels == right.labels
    assert right.labels["start_positions"] > 0
    assert "(corrected)" in read.lines[0]


def test_questions_that_do_not_fit_are_left_out_or_refused(questions: Path, tokenize: WindowTokenizer) -> None:
    examples = read_answered(questions).examples
    asked = len(tokenize(examples[0].question, "1", max_seq_len=128, doc_stride=0)[0])
    with pytest.raises(DataError, match="cannot read any of the 60 questions: the question is too long"):
        answered_rows(Windowing(tokenize, 128, asked - 1), examples)


def test_a_plan_shows_each_window_once_an_epoch_and_pads_little() -> None:
    lengths = torch.randint(10, 300, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    plan = plan_batches(lengths, 8, epochs=2, max_steps=None, seed=0)
    assert len(plan) == 250
    for epoch in (plan[:125], plan[125:]):
        assert sorted(window for batch in epoch for window in batch) == list(range(1000))
    assert plan[:125] != plan[125:]
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    assert padded < 1.1 * 2 * sum(lengths)
    assert [len(batch) for batch in plan] != sorted(len(batch) for batch in plan) or len(set(map(len, plan))) == 1
    means = [sum(lengths[i] for i in batch) / len(batch) for batch in plan[:50]]
    assert means != sorted(means)


def test_a_plan_depends_on_its_seed_alone_and_is_cut_where_told() -> None:
    lengths = list(range(1, 41))
    plan = plan_batches(lengths, 8, epochs=3, max_steps=None, seed=1)
    assert plan == plan_batches(lengths, 8, epochs=3, max_steps=None, seed=1)
    assert plan != plan_batches(lengths, 8, epochs=3, max_steps=None, seed=2)
    assert plan[:7] == plan_batches(lengths, 8, epochs=1, max_steps=7, seed=1)
    assert len(plan_batches(lengths, 8, epochs=0.5, max_steps=None, seed=1)) == 3


def test_a_batch_is_padded_to_its_longest_window(questions: Path, tokenize: WindowTokenizer) -> None:
    windows = answered_rows(Windowing(tokenize, 128), read_answered(questions).examples[:4])
    batch = collate(windows)
    assert batch["input_ids"].shape == (4, max(map(len, windows)))
    for row, window in enumerate(windows):
        assert batch["input_ids"][row, : len(window)].tolist() == window.ids.tolist()
        assert batch["attention_mask"][row].sum() == len(window)
        assert batch["token_type_ids"][row].nonzero().ravel().tolist() == list(
            range(window.second_segment, len(window))
        )
        assert batch["start_positions"][row] == window.labels["start_positions"]
        assert batch["end_positions"][row] == window.labels["end_positions"]
    assert not batch["input_ids"][batch["attention_mask"] == 0].any()
