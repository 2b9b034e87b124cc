import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.text import SQuAD
from transformers import BertForQuestionAnswering
from transformers.data.metrics.squad_metrics import squad_evaluate

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering import evaluation
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate, score_f1
from dynamic_tinybert.runtime.tasks.question_answering.findings import Kind
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.question_answering.squad import Example, read_squad
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.tiny import letter_tokenizer, tiny_bert
from support.torch_model import TorchModel, load_bert, transformers_tokenizer

WORDS = [
    "Ada",
    "met",
    "Charles",
    "in",
    "London,",
    "June",
    "1833.",
    "He",
    "wrote",
    "to",
    "her",
    "about",
    "engines",
    "and",
    "numbers?",
]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_tokenizer(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    random = np.random.default_rng(0)
    made = []
    for i in range(40):
        words = random.choice(WORDS, random.integers(5, 60)).tolist()
        at = int(random.integers(len(words) - 1))
        answers = (" ".join(words[at : at + 2]), words[0])
        made.append(Example(str(i), "who was it?", " ".join(words), answers, "title"))
    return made


def reference_scores(
    model: BertForQuestionAnswering, tokenizer_file: Path, examples: list[Example], max_length: int, stride: int
) -> list[tuple[float, float]]:
    """F1 and exact match of each example, as scripts for SQuAD do it: n-best 20, answers up to 30 tokens."""
    tokenizer = transformers_tokenizer(tokenizer_file)
    scores = []
    for example in examples:
        encoded = tokenizer(
            example.question,
            example.context,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model(**{k: encoded[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
        candidates = []
        for window, (start, end) in enumerate(zip(output.start_logits, output.end_logits, strict=True)):
            sequences = encoded.sequence_ids(window)
            for i in start.topk(min(20, len(start))).indices.tolist():
                for j in end.topk(min(20, len(end))).indices.tolist():
                    if sequences[i] == sequences[j] == 1 and i <= j < i + 30:
                        offsets = encoded["offset_mapping"][window]
                        text = example.context[offsets[i][0] : offsets[j][1]]
                        candidates.append((float(start[i] + end[j]), text))
        metric = SQuAD()(
            [{"prediction_text": max(candidates)[1], "id": example.id}],
            [{"answers": {"answer_start": [0] * 9, "text": list(example.answers)}, "id": example.id}],
        )
        scores.append((float(metric["f1"]), float(metric["exact_match"])))
    return scores


def kept_positions(mask: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int32]]:
    """Layer 1 keeps half of each row's real tokens."""
    length = mask.shape[1]
    positions = np.tile(np.arange(length, dtype=np.int32), (len(mask), 1))
    positions[positions >= mask.sum(1, keepdims=True) // 2] = length
    return {1: positions}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_figures(tokenizer_file: Path, examples: list[Example], batch_size: int) -> None:
    bert = tiny_bert()
    model = TorchModel(bert, tokenizer_file, kept_positions)
    result = evaluate(model.as_model(), examples, length_config="any", batch_size=batch_size)

    expected = np.array(reference_scores(bert, tokenizer_file, examples, 128, 64))
    np.testing.assert_allclose(result.question_f1, expected[:, 0], atol=1e-3)
    np.testing.assert_allclose(result.question_exact_match, expected[:, 1])
    assert result.f1 == pytest.approx(expected[:, 0].mean(), abs=1e-3)
    assert result.exact_match == pytest.approx(expected[:, 1].mean())
    assert 0 < result.f1 < 100

    untimed = 1 if batch_size == 1 else 0
    lengths = np.concatenate([batch["attention_mask"].sum(1) for batch in model.inputs[untimed:]])
    assert len(lengths) > len(examples)  # some contexts take several windows
    halves = lengths // 2
    assert result.mean_length == pytest.approx(lengths.mean())
    assert result.mean_kept == pytest.approx((lengths.mean(), halves.mean(), halves.mean()))
    assert result.mean_macs == pytest.approx((1000 * lengths + lengths + 2 * halves).mean())
    if batch_size == 1:
        assert len(result.question_ms) == len(result.predictions)
        assert 0 < np.min(result.question_ms) <= np.max(result.question_ms)
    else:
        assert (result.latency_ms(50), result.latency_ms(95)) == (None, None)
    assert json.loads(json.dumps(result.to_dict()))["question_f1"] == list(result.question_f1)


def test_joined_parts_are_the_whole(tokenizer_file: Path, examples: list[Example]) -> None:
    model = TorchModel(tiny_bert(), tokenizer_file, kept_positions).as_model()
    whole = evaluate(model, examples, length_config="any", batch_size=4)
    parts = [evaluate(model, part, length_config="any", batch_size=4) for part in (examples[:3], examples[3:])]
    assert parts[0].join(parts[1:]) == replace(whole, mean_macs=pytest.approx(whole.mean_macs))


def test_compiling_does_not_count_as_latency(
    tokenizer_file: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that only the model moves: by 60 s in its first call, by 1 s in each of the others."""
    now = 0.0

    class SlowToStart(TorchModel):
        def __call__(
            self, input_ids: npt.NDArray[np.int64], *, length_config: object, **others: npt.NDArray[np.int64]
        ) -> QuestionAnsweringOutput:
            nonlocal now
            now += 1 if self.inputs else 60
            return super().__call__(input_ids, length_config=length_config, **others)

    monkeypatch.setattr(evaluation, "perf_counter", lambda: now)
    model = SlowToStart(tiny_bert(max_position_embeddings=512), tokenizer_file)  # all in one window
    result = evaluate(model.as_model(), examples[:3])
    assert (result.latency_ms(50), result.latency_ms(95)) == (1000, 1000)


def test_no_progress_bar_without_a_terminal(
    tokenizer_file: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    model = TorchModel(tiny_bert(), tokenizer_file).as_model()
    evaluate(model, examples[:2], progress=True)
    assert capsys.readouterr() == ("", "")


def test_bad_input(tokenizer_file: Path, examples: list[Example]) -> None:
    model = TorchModel(tiny_bert(), tokenizer_file).as_model()
    with pytest.raises(DataError, match="no examples"):
        evaluate(model, [])
    without, too_long = Example("x", "who?", "abc", (), ""), Example("y", "who? " * 99, "abc", ("abc",), "")
    with pytest.raises(DataError, match="none of the 1 questions can be scored; question 'x': it has no answer"):
        evaluate(model, [without])
    with pytest.raises(DataError, match="cannot read any of the 1 questions: the question is too long"):
        evaluate(model, [too_long])
    with pytest.raises(DataError, match="question 'x': it has no answer"):
        evaluate(model, [*examples, too_long, without], strict=True)
    with pytest.raises(DataError, match="question 'y': the question is too long"):
        evaluate(model, [*examples, too_long], strict=True)
    with pytest.raises(InvalidInputError, match="batch_size must be an int of at least 1, not 0"):
        evaluate(model, examples, batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_questions_that_cannot_be_scored_do_not_end_it(
    tokenizer_file: Path, examples: list[Example], batch_size: int
) -> None:
    model = TorchModel(tiny_bert(), tokenizer_file).as_model()
    without, too_long = Example("x", "who?", "abc", (), ""), Example("y", "who? " * 99, "abc", ("abc",), "")
    whole = evaluate(model, examples, batch_size=batch_size)
    result = evaluate(model, [too_long, without, *examples], batch_size=batch_size)
    assert result.ids == ("y", *(example.id for example in examples))
    assert [(finding.id, finding.kind) for finding in result.skipped] == [
        ("x", Kind.WITHOUT_ANSWER),
        ("y", Kind.UNREADABLE),
    ]
    assert result.question_f1 == (0.0, *whole.question_f1)
    assert result.f1 == pytest.approx(whole.f1 * 40 / 41)
    assert result.predictions == ("", *whole.predictions)
    assert (result.window_lengths, result.mean_macs) == (whole.window_lengths, whole.mean_macs)
    assert len(result.question_ms) == len(whole.question_ms)
    assert result.squad_v2 is None
    written = json.loads(json.dumps(result.to_dict()))
    assert written["ids"] == list(result.ids)
    assert written["skipped"][1]["why"].startswith("the question is too long")


def test_options_are_those_of_the_usual_script(tokenizer_file: Path, examples: list[Example]) -> None:
    """Also against windows and answers of other sizes."""
    bert = tiny_bert()
    model = TorchModel(bert, tokenizer_file).as_model()
    result = evaluate(model, examples, max_seq_len=64, doc_stride=16)
    expected = np.array(reference_scores(bert, tokenizer_file, examples, 64, 16))
    np.testing.assert_allclose(result.question_f1, expected[:, 0], atol=1e-3)
    short = evaluate(model, examples, max_answer_len=2)
    assert max(map(len, short.predictions)) <= 3 < max(map(len, result.predictions))


def test_without_a_threshold_an_unanswerable_question_scores_by_the_empty_answer(
    tokenizer_file: Path, examples: list[Example]
) -> None:
    model = TorchModel(tiny_bert(), tokenizer_file).as_model()
    asked = replace(examples[0], answers=(), is_impossible=True)
    windows = WindowTokenizer(tokenizer_file)(asked.question, asked.context, max_seq_len=128, doc_stride=64)
    (outputs,) = run_windows(model, [windows], length_config=None, batch_size=1)
    assert score_f1(asked, windows, outputs, no_answer_threshold=None) == 0
    assert score_f1(asked, windows, outputs, no_answer_threshold=-1e5) == 100


@pytest.mark.parametrize("threshold", [None, -1.0, 3.5])
def test_figures_of_v2_are_those_of_transformers(
    tokenizer_file: Path, examples: list[Example], threshold: float | None
) -> None:
    """With answers and without; the spans and scores of no answer in plain loops over PyTorch's logits."""
    bert = tiny_bert()
    asked = [replace(e, answers=(), is_impossible=True) if i % 3 == 0 else e for i, e in enumerate(examples)]
    result = evaluate(TorchModel(bert, tokenizer_file).as_model(), asked, batch_size=4, no_answer_threshold=threshold)
    tokenize = WindowTokenizer(tokenizer_file)
    spans, scores = {}, {}
    for example in asked:
        best, cls = (-np.inf, ""), np.inf
        for window in tokenize(example.question, example.context, max_seq_len=128, doc_stride=64):
            types = [0] * window.context.start + [1] * (len(window) - window.context.start)
            with torch.inference_mode():
                output = bert(torch.tensor([window.encoding.ids]), token_type_ids=torch.tensor([types]))
            start, end = output.start_logits[0].tolist(), output.end_logits[0].tolist()
            cls = min(cls, start[0] + end[0])
            for i in range(window.context.start, window.context.stop):
                for j in range(i, min(i + 30, window.context.stop)):
                    text = example.context[window.encoding.offsets[i][0] : window.encoding.offsets[j][1]]
                    best = max(best, (start[i] + end[j], text), key=lambda pair: pair[0])
        spans[example.id], scores[example.id] = best[1], cls - best[0]
    oracle = [SimpleNamespace(qas_id=e.id, answers=[{"text": answer} for answer in e.answers]) for e in asked]
    expected = squad_evaluate(oracle, spans, scores, threshold or 0.0)
    assert result.squad_v2 is not None
    found = dict(result.squad_v2)
    for threshold_name in ("best_exact_thresh", "best_f1_thresh"):
        if expected[threshold_name] == 0:  # it is best to answer nothing, which the script's 0 need not do
            assert found.pop(threshold_name) < min(scores.values())
            del expected[threshold_name]
    assert "best_f1_thresh" in found
    assert found == pytest.approx(expected, abs=1e-3)
    assert result.f1 == pytest.approx(expected["f1"], abs=1e-3)
    for example, prediction in zip(asked, result.predictions, strict=True):
        assert prediction == ("" if scores[example.id] > (threshold or 0.0) else spans[example.id])


@pytest.mark.slow
def test_real_checkpoint_against_the_usual_script(checkpoint: Path, squad_data: Path) -> None:
    examples = read_squad(squad_data / "squad-search.json", require_answers=True)[::5]
    bert = load_bert(checkpoint)
    result = evaluate(TorchModel(bert, checkpoint / "tokenizer.json").as_model(), examples, batch_size=8)
    expected = reference_scores(bert, checkpoint / "tokenizer.json", examples, 384, 128)
    np.testing.assert_allclose(result.question_f1, [f for f, _ in expected], atol=1e-3)
    np.testing.assert_allclose(result.question_exact_match, [e for _, e in expected])
