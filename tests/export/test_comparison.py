"""What INT8 changes, against torch's softmax and answers that are known by construction."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dynamic_tinybert.export.tasks.question_answering.questions import Questions
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.tiny import tiny_tokenizer

CONTEXT = "the fox was in the box and the cat was in the hat . who was in it ?"
Outputs = list[list[WindowOutput]]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Questions:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    tokenize = WindowTokenizer(file)
    examples = [Example(str(k), f"who was in {k} ?", CONTEXT, ("the fox",), "") for k in (1, 2, 3)]
    windows = [tokenize(e.question, e.context, max_seq_len=24, doc_stride=4) for e in examples]
    assert len(windows[0]) > 1
    return Questions("test", examples, windows, scored=True)


def random_outputs(questions: Questions, seed: int) -> Outputs:
    random = np.random.default_rng(seed)
    return [
        [
            WindowOutput(start, end, {})
            for start, end in (random.normal(size=(2, len(window) + 3)).astype(np.float32) for window in own)
        ]
        for own in questions.windows
    ]


def pointing_at(questions: Questions, words: Sequence[str]) -> Outputs:
    """Outputs that make the first occurrence of a single word the answer to each question."""
    outputs: Outputs = []
    for own, word in zip(questions.windows, words, strict=True):
        outputs.append(
            [WindowOutput(np.zeros(len(window), np.float32), np.zeros(len(window), np.float32), {}) for window in own]
        )
        place = own[0].encoding.tokens.index(word, own[0].context.start)
        for logits in (outputs[-1][0].start_logits, outputs[-1][0].end_logits):
            logits[place] = 9
    return outputs


def test_figures_are_those_of_torch(questions: Questions) -> None:
    fp32, int8 = random_outputs(questions, 0), random_outputs(questions, 1)
    moved, errors = [], []
    for own, before, after in zip(questions.windows, fp32, int8, strict=True):
        for window, a, b in zip(own, before, after, strict=True):
            inside = [i for i, part in enumerate(window.encoding.sequence_ids) if part == 1]
            for x, y in ((a.start_logits, b.start_logits), (a.end_logits, b.end_logits)):
                p, q = torch.tensor(x[inside]), torch.tensor(y[inside])
                moved.append((p.softmax(0) - q.softmax(0)).clamp(min=0).sum().item())
                errors += (p - q).abs().tolist()
    change = questions.compare(fp32, int8)
    assert change.moved == pytest.approx(100 * np.mean(moved), rel=1e-5)
    assert change.logit_error == pytest.approx(np.mean(errors), rel=1e-5)
    assert change.questions == 3


def test_equal_outputs_change_nothing(questions: Questions) -> None:
    outputs = random_outputs(questions, 0)
    change = questions.compare(outputs, outputs)
    assert (change.moved, change.logit_error, change.same_answers) == (0, 0, 100)
    assert change.f1 == (0, 0, 0)


def test_answers_are_compared_with_each_other_and_with_the_right_ones(questions: Questions) -> None:
    fp32 = pointing_at(questions, ["the", "and", "was"])
    int8 = pointing_at(questions, ["the", "and", "in"])
    change = questions.compare(fp32, int8)
    assert change.same_answers == pytest.approx(200 / 3)
    assert change.f1 == (0, 0, 0)  # none of these words is in the right answer but for its article
    unscored = Questions("test", questions.examples, questions.windows, scored=False)
    assert unscored.compare(fp32, int8).f1 is None
