from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.tiny import tiny_bundle

CONTEXT = "the fox was in the box and the cat was in the hat . " * 10


def asked(name: str, question: str = "who ?", context: str = CONTEXT) -> Example:
    return Example(name, question, context, (), "")


def tokens(windows: list[Window]) -> list[list[str]]:
    return [window.encoding.tokens for window in windows]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def test_a_bundle_its_model_and_its_tokenizer_give_the_same_windows(bundle: Path) -> None:
    opened = open_bundle(bundle)
    file = opened.tokenizer_json
    windowings = [
        Windowing.of(opened),
        Windowing.of(LengthAdaptiveModel(opened)),
        *(Windowing(t, 128) for t in (file, Tokenizer.from_file(str(file)), WindowTokenizer(file))),
    ]
    assert {(windowing.max_seq_len, windowing.doc_stride) for windowing in windowings} == {(128, 64)}
    first, *others = (tokens(windowing.cut("who ?", CONTEXT)) for windowing in windowings)
    assert len(first) > 1
    assert all(other == first for other in others)


def test_sizes_are_taken_and_checked(bundle: Path) -> None:
    windowing = Windowing.of(open_bundle(bundle), 40, 7)
    assert (windowing.max_seq_len, windowing.doc_stride) == (40, 7)
    assert tokens(windowing.cut("who ?", CONTEXT)) == tokens(
        WindowTokenizer(bundle / "tokenizer.json")("who ?", CONTEXT, max_seq_len=40, doc_stride=7)
    )
    with pytest.raises(InvalidInputError, match="max_seq_len=129 is more than the 128 tokens this model reads"):
        windowing.resized(129, None)


def test_what_cannot_be_read_is_recorded_skipped_or_refused(bundle: Path) -> None:
    windowing = Windowing.of(open_bundle(bundle))
    examples = [asked("good"), asked("long", "who " * 200), asked("blank", context=" "), asked("good too", "what ?")]
    assert [example.id for example, _ in windowing.readable(examples)] == ["good", "good too"]
    assert windowing(examples[1]) == []  # once more
    assert [finding.id for finding in windowing.unreadable] == ["blank", "long"]
    expected = [window for example in (examples[0], examples[3]) for window in windowing(example)]
    assert tokens(windowing.windows(examples)) == tokens(expected)
    with pytest.raises(InvalidInputError, match="the question is too long"):
        windowing.cut(examples[1].question, CONTEXT)
    error = windowing.refuse_all("these")
    assert isinstance(error, DataError)
    assert str(error).startswith("the model cannot read these: ")


def test_other_sizes_share_the_tokenizer_and_forget_what_could_not_be_read(bundle: Path) -> None:
    windowing = Windowing.of(open_bundle(bundle))
    assert windowing(asked("blank", context="")) == []
    smaller = windowing.resized(50, None)
    assert (smaller.max_seq_len, smaller.doc_stride) == (50, 25)
    assert smaller.unreadable == ()
    assert len(smaller.cut("who ?", CONTEXT)) > len(windowing.cut("who ?", CONTEXT))
    assert len(windowing.unreadable) == 1
