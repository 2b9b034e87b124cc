import json
import re
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime import (
    LengthAdaptiveModel,
    LengthConfig,
    QuestionAnswerer,
    QuestionAnsweringOutput,
    explain,
)
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError

from support.tiny import tiny_bert, tiny_bundle, tiny_tokenizer, write_tiny_bundle
from support.torch_model import transformers_tokenizer

QUESTION = "what was in the box?"
SHORT = "the fox, and 1 cat, was in the box. the hat was in it."
LONG = " ".join(f"the {word} was in the {word[::-1]}, and in {k}." for k, word in enumerate(["fox", "cat", "hat"] * 7))
LETTER_Q = tiny_tokenizer().token_to_id("q")
CONFIGS = {
    "attention": LengthConfig((0.9, 0.6, 0.3)),
    "learnt": LengthConfig((1, 0.9, 0.6), (None, 0.5, 0.38)),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LengthAdaptiveModel:
    """A tiny model whose configuration `drops` goes by its kind of significance."""
    folder, configs = tmp_path_factory.mktemp(request.param), {"drops": CONFIGS[request.param]}
    if request.param == "attention":
        return LengthAdaptiveModel.from_pretrained(tiny_bundle(folder, configs))
    torch = pytest.importorskip("torch", reason="random scorers are made by PyTorch")
    from dynamic_tinybert.modeling import Scorer

    torch.manual_seed(1)
    scorers = {layer: Scorer(32, 4, (3,)) for layer in (1, 2)}
    return LengthAdaptiveModel.from_pretrained(write_tiny_bundle(folder, tiny_bert(), configs, scorers))


def windows_of_transformers(model: LengthAdaptiveModel, context: str) -> Any:  # noqa: ANN401 - BatchEncoding
    return transformers_tokenizer(model.tokenizer_file)(
        QUESTION,
        context,
        truncation="only_second",
        max_length=128,
        stride=64,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )


def kept_by_layer(model: LengthAdaptiveModel, encoded: Any, index: int) -> list[set[int]]:  # noqa: ANN401
    """For each layer the positions that it passed on, read off the model's own output."""
    ids = encoded["input_ids"][index]
    types = [int(sequence == 1) for sequence in encoded.sequence_ids(index)]
    types[-1] = 1
    output = model(np.array([ids]), token_type_ids=np.array([types]), length_config="drops")
    kept = [set(range(len(ids)))]
    for layer in range(3):
        positions = output.kept_positions.get(layer)
        kept.append(kept[-1] if positions is None else {p for p in positions[0].tolist() if p < len(ids)})
    return kept[1:]


@pytest.mark.parametrize(("context", "number"), [(SHORT, 1), (LONG, 5)])
def test_tokens_are_dropped_where_the_model_says(model: LengthAdaptiveModel, context: str, number: int) -> None:
    encoded = windows_of_transformers(model, context)
    windows = explain(model, QUESTION, context, length_config="drops").windows
    assert len(windows) == len(encoded["input_ids"]) == number
    for index, window in enumerate(windows):
        kept = kept_by_layer(model, encoded, index)
        assert window.kept == tuple(map(len, kept))
        assert window.kept[-1] < window.kept[0]
        assert [token.text for token in window.tokens] == encoded.encodings[index].tokens
        for position, token in enumerate(window.tokens):
            assert token.dropped_at == next((layer for layer in range(3) if position not in kept[layer]), None)
            sequence = encoded.sequence_ids(index)[position]
            assert token.segment == {None: None, 0: "question", 1: "context"}[sequence]
            offsets = (None, None) if sequence is None else encoded["offset_mapping"][index][position]
            assert (token.start, token.end) == offsets


def test_a_word_survives_as_long_as_any_of_its_tokens(model: LengthAdaptiveModel) -> None:
    (window,) = explain(model, QUESTION, SHORT, length_config="drops").windows
    encoded = windows_of_transformers(model, SHORT)
    kept = kept_by_layer(model, encoded, 0)
    expected, losing_part = [], 0
    for sequence, (segment, text) in enumerate((("question", QUESTION), ("context", SHORT))):
        for match in re.finditer(r"\w+|[^\w\s]", text):
            tokens = {
                position
                for position, (start, end) in enumerate(encoded["offset_mapping"][0])
                if encoded.sequence_ids(0)[position] == sequence and match.start() <= start < end <= match.end()
            }
            survives = [bool(tokens & kept[layer]) for layer in range(3)]
            losing_part += any(0 < len(tokens & kept[layer]) < len(tokens) for layer in range(3))
            expected.append(
                (match.group(), segment, *match.span(), survives.index(False) if not all(survives) else None)
            )
    assert losing_part > 0
    assert [(w.text, w.segment, w.start, w.end, w.dropped_at) for w in window.words] == expected


def test_windows_over_a_long_context_hold_every_word_of_it(model: LengthAdaptiveModel) -> None:
    windows = explain(model, QUESTION, LONG, length_config="drops").windows
    assert len(windows) > 1
    covered = set()
    for window in windows:
        assert [word.text for word in window.words if word.segment == "question"] == [
            "what",
            "was",
            "in",
            "the",
            "box",
            "?",
        ]
        covered |= {c for word in window.words if word.segment == "context" for c in range(word.start, word.end)}
    assert covered == {at for at, character in enumerate(LONG) if not character.isspace()}


@pytest.mark.parametrize("context", [SHORT, LONG])
@pytest.mark.parametrize("name", ["drops", "full"])
def test_the_answer_is_that_of_the_answerer_and_in_the_window_named(
    model: LengthAdaptiveModel, context: str, name: str
) -> None:
    explanation = explain(model, QUESTION, context, length_config=name)
    answer = QuestionAnswerer(model)(QUESTION, context, length_config=name)
    assert explanation.answer == {**answer, "score": pytest.approx(answer["score"], abs=1e-5)}
    words = explanation.windows[explanation.answer_window].words
    starts, ends = zip(*((word.start, word.end) for word in words if word.segment == "context"), strict=True)
    assert answer["start"] in starts
    assert answer["end"] in ends


@pytest.mark.parametrize("surest", [0, 1])
def test_of_the_windows_that_hold_the_answer_the_surest_is_named(
    model: LengthAdaptiveModel, monkeypatch: pytest.MonkeyPatch, surest: int
) -> None:
    context = " ".join(["x"] * 100 + ["q"] + ["x"] * 100)
    heights = (10.0 if index == surest else 5.0 for index in count())

    def sees_the_q(self: LengthAdaptiveModel, input_ids: npt.NDArray[np.int64], **_: object) -> QuestionAnsweringOutput:
        logits = np.where(input_ids == LETTER_Q, next(heights), 0).astype(np.float32)
        return QuestionAnsweringOutput(logits, logits, {})

    monkeypatch.setattr(LengthAdaptiveModel, "__call__", sees_the_q)
    explanation = explain(model, QUESTION, context, length_config="full")
    holding = [
        index
        for index, window in enumerate(explanation.windows)
        if any(word.text == "q" for word in window.words if word.segment == "context")
    ]
    assert explanation.answer["answer"] == "q"
    assert holding == [0, 1]
    assert explanation.answer_window == surest


def test_macs_are_those_of_all_windows(model: LengthAdaptiveModel) -> None:
    explanation = explain(model, QUESTION, LONG, length_config="drops")
    h, f, total = 32, 64, 0
    for window in explanation.windows:
        for _ in range(3):
            total += 4 * len(window.tokens) * h * h + 2 * len(window.tokens) ** 2 * h + 2 * len(window.tokens) * h * f
    assert explanation.full_macs == total
    assert explanation.macs == sum(
        model.executed_macs("drops", len(window.tokens), window.kept) for window in explanation.windows
    )
    assert explanation.macs_fewer == explanation.full_macs / explanation.macs != 1


def test_full_drops_nothing(model: LengthAdaptiveModel) -> None:
    explanation = explain(model, QUESTION, SHORT)  # the default
    assert (explanation.length_config_name, explanation.macs_fewer) == ("full", 1)
    for window in explanation.windows:
        assert set(window.kept) == {len(window.tokens)}
        assert {token.dropped_at for token in window.tokens} == {word.dropped_at for word in window.words} == {None}


def test_any_keep_ratios_can_be_explained(model: LengthAdaptiveModel) -> None:
    ratios = (1, 0.7, 0.7)
    explanation = explain(model, QUESTION, SHORT, length_config=ratios)
    assert explanation.length_config_name is None
    assert explanation.length_config == LengthConfig(ratios)
    length = len(explanation.windows[0].tokens)
    assert explanation.windows[0].kept == (length, -(-7 * length // 10), -(-7 * length // 10))


def test_an_elastic_model_explains_the_same(model: LengthAdaptiveModel) -> None:
    elastic = LengthAdaptiveModel(model.bundle, elastic=True)
    for context in (SHORT, LONG):
        one, other = (explain(m, QUESTION, context, length_config="drops") for m in (model, elastic))
        assert one.windows == other.windows


@settings(deadline=None, max_examples=50)
@given(context=st.text("the fox was  dé\u0301ß日本🙂👩\u200d🔬.,-?\n\t\u200d\u05d0\x1b", min_size=1, max_size=200))
def test_json_is_whole_and_its_offsets_slice_the_texts(model: LengthAdaptiveModel, context: str) -> None:
    try:
        explanation = explain(model, QUESTION, context, length_config="drops")
    except InvalidInputError as error:
        assert "context is empty" in str(error)  # noqa: PT017 - most texts are fine
        return
    read = json.loads(json.dumps(explanation.to_dict()))
    assert read["answer"] == explanation.answer
    assert read["length_config_name"] == "drops"
    assert LengthConfig(**read["length_config"]) == model.length_configs["drops"].config
    assert read["macs_fewer"] == read["full_macs"] / read["macs"]
    assert (read["question"], read["context"]) == (QUESTION, context)
    for window in read["windows"]:
        ends = {"question": 0, "context": 0}
        for word in window["words"]:
            start, end, segment = word["start"], word["end"], word["segment"]
            assert read[segment][start:end] == word["text"] != ""
            assert ends[segment] <= start  # in order, none twice
            ends[segment] = end
            tokens = [t for t in window["tokens"] if t["segment"] == segment and start <= t["start"] < t["end"] <= end]
            dropped_at = [token["dropped_at"] for token in tokens]
            assert word["dropped_at"] == (None if None in dropped_at else max(dropped_at))
        for layer, kept in enumerate(window["kept"]):
            assert kept == sum(t["dropped_at"] is None or t["dropped_at"] > layer for t in window["tokens"])


@pytest.mark.parametrize(
    ("question", "context", "length_config", "error", "message"),
    [
        ("", SHORT, "drops", InvalidInputError, "question is empty"),
        (QUESTION, " \n", "drops", InvalidInputError, "context is empty"),
        ("a " * 200, SHORT, "drops", InvalidInputError, "question is too long"),
        (QUESTION, SHORT, "x", LengthConfigError, "unknown length configuration 'x'"),
        (QUESTION, SHORT, (1, 0.5), LengthConfigError, "2 keep ratios"),
    ],
)
def test_bad_input_is_refused_as_by_the_answerer(
    model: LengthAdaptiveModel,
    question: str,
    context: str,
    length_config: str | tuple[float, ...],
    error: type[Exception],
    message: str,
) -> None:
    for refuses in (partial(explain, model), QuestionAnswerer(model)):
        with pytest.raises(error, match=message):
            refuses(question, context, length_config=length_config)
