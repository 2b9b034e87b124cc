import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.calibration.data import FEWEST_EXAMPLES, CalibrationData, split_by_group
from dynamic_tinybert.calibration.data import read_calibration_data as read_data
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.question_answering.example import Example, article_of
from dynamic_tinybert.runtime.tasks.question_answering.measure import QuestionAnsweringMeasure
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.tiny import tiny_tokenizer


def read_calibration_data(*files: Path, **options: Any) -> CalibrationData[Example]:  # noqa: ANN401
    """Read with a tiny tokenizer and windows of 64 tokens."""
    measure = QuestionAnsweringMeasure(Windowing(tiny_tokenizer()._tokenizer, 64))
    return read_data(measure, *files, **options)


def write(path: Path, articles: list[int], *, answers: bool = True, prefix: str = "") -> Path:
    """A SQuAD file whose articles have so many questions."""
    content = [
        {
            "title": f"{prefix}{title}",
            "paragraphs": [
                {
                    "context": f"Anna lives in {prefix}{title}.",
                    "qas": [
                        {"id": f"{prefix}{title}-{k}", "question": "Where?"}
                        | ({"answers": [{"text": f"{prefix}{title}", "answer_start": 14}]} if answers else {})
                        for k in range(count)
                    ],
                }
            ],
        }
        for title, count in enumerate(articles)
    ]
    path.write_text(json.dumps({"data": content}))
    return path


@settings(deadline=None, max_examples=30)  # files are written
@given(st.lists(st.integers(1, 60), min_size=30, max_size=60), st.integers(0, 5))
def test_parts_share_no_article_and_lose_no_question(
    tmp_path_factory: pytest.TempPathFactory, articles: list[int], seed: int
) -> None:
    file = write(tmp_path_factory.mktemp("data") / "data.json", [count + 10 for count in articles])
    data = read_calibration_data(file, seed=seed)
    parts = (data.fitting, data.choosing, data.reporting)
    titles = [{example.title for example in part} for part in parts]
    assert not titles[0] & titles[1] | titles[0] & titles[2] | titles[1] & titles[2]
    assert sum(map(len, parts)) == sum(articles) + 10 * len(articles)
    assert len(data.choosing) > 0
    assert len(data.fitting) > len(data.choosing) - 10 - max(articles)  # at least as many, but for an article
    assert data == read_calibration_data(file, seed=seed)


def test_files_of_their_own_are_taken_whole(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.json", [60, 70], prefix=name) for name in ("fit", "choose", "report")]
    data = read_calibration_data(*files)
    assert {example.title[:-1] for example in data.fitting} == {"fit"}
    assert {example.title[:-1] for example in data.choosing} == {"choose"}
    assert {example.title[:-1] for example in data.reporting} == {"report"}
    assert len(data.fitting) == len(data.choosing) == len(data.reporting) == 130


@pytest.mark.parametrize(
    ("articles", "beside_test", "sizes"),
    [
        (200, False, [1200, 500, 300]),  # 0.6, 0.25, 0.15
        (200, True, [1700, 300]),
        (50, False, [210, 210, 80]),  # as many to choose on as to fit on, as 300 would be more
        (50, True, [250, 250]),
    ],
)
def test_a_small_file_gives_more_of_its_questions_to_choose_on(
    tmp_path: Path, articles: int, beside_test: bool, sizes: list[int]
) -> None:
    file = write(tmp_path / "data.json", [10] * articles)
    test = write(tmp_path / "test.json", [10] * 8, prefix="t") if beside_test else None
    data = read_calibration_data(file, test=test)
    found = [len(data.fitting), len(data.choosing), len(data.reporting)][: len(sizes)]
    assert found == pytest.approx(sizes, abs=10)
    assert sum(found) == 10 * articles
    assert not any("to choose on say little" in line for line in data.lines)


@pytest.mark.parametrize("beside_test", [False, True])
def test_a_file_of_which_the_model_can_read_nothing_is_refused(tmp_path: Path, beside_test: bool) -> None:
    file = write(tmp_path / "data.json", [10] * 9)
    file.write_text(file.read_text().replace('"question": "Where?"', f'"question": "{"who " * 99}"'))
    test = write(tmp_path / "test.json", [10] * 8, prefix="t") if beside_test else None
    with pytest.raises(DataError, match="too few questions for fitting: 0 for fitting, 0 for choosing"):
        read_calibration_data(file, test=test)


def test_few_questions_to_choose_on_are_warned_of(tmp_path: Path) -> None:
    fit, choose, report = (write(tmp_path / f"{n}.json", [10] * n, prefix=f"{n}-") for n in (9, 14, 8))
    (line,) = read_calibration_data(fit, choose, report).lines
    assert line.startswith("Warning: 140 questions to choose on say little about others, on which named ")


def test_validation_data_alone_serves_choosing_and_reporting(tmp_path: Path) -> None:
    fit, other = write(tmp_path / "fit.json", [60], prefix="f"), write(tmp_path / "other.json", [20] * 30, prefix="v")
    data = read_calibration_data(fit, other)
    assert len(data.fitting) == 60
    assert len(data.choosing) == 400
    assert len(data.reporting) == 200


def test_articles_without_a_title_are_told_apart_by_their_context(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path / "data.json", [20] * 60).read_text())
    for article in content["data"]:
        del article["title"]
    (tmp_path / "data.json").write_text(json.dumps(content))
    data = read_calibration_data(tmp_path / "data.json")
    assert not {e.context for e in data.fitting} & {e.context for e in data.choosing}


@pytest.mark.parametrize("articles", [[300], [40, 1, 1], [1]])
def test_too_few_questions_are_refused(tmp_path: Path, articles: list[int]) -> None:
    with pytest.raises(DataError, match=rf"too few questions for \w+: .* for fitting, .* each needs {FEWEST_EXAMPLES}"):
        read_calibration_data(write(tmp_path / "data.json", articles))


def test_an_answer_that_is_not_in_its_context_is_no_answer_or_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "data.json", [60] * 6)
    file.write_text(file.read_text().replace('"text": "3"', '"text": "nowhere"', 1))
    with pytest.raises(
        DataError, match=r"data\.json, question '3-0': the answer 'nowhere' is not at its answer_start 14, n"
    ):
        read_calibration_data(file, strict=True)
    data = read_calibration_data(file)
    (line, *warnings), (finding,) = data.lines, data.findings
    assert all(warning.startswith("Warning: ") for warning in warnings)  # few articles
    assert line.startswith(
        "data.json: 1 of 360 questions have an answer that is not where the file says and cannot be "
    )
    assert finding.id == "3-0"
    questions = [*data.fitting, *data.choosing, *data.reporting]
    assert [example.id for example in questions if not example.answers] == ["3-0"]


def test_questions_that_the_model_cannot_read_are_left_out_and_said(tmp_path: Path) -> None:
    file = write(tmp_path / "data.json", [60] * 6)
    file.write_text(file.read_text().replace('"question": "Where?"', f'"question": "{"who " * 99}"', 1))
    data = read_calibration_data(file)
    assert sum(map(len, (data.fitting, data.choosing, data.reporting))) == 359
    assert data.lines[0].startswith("data.json: 1 of 360 questions cannot be read by the model (skipped); ")
    assert "'0-0': the question is too long" in data.lines[0]
    with pytest.raises(DataError, match="'0-0': the question is too long"):
        read_calibration_data(file, strict=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("d", r"data\.json are kept whole when it is divided into 3 parts, so it needs at least 334 questions and 3 "),
        ("dv", r"validation\.json are kept whole when it is divided into 2 parts, so it needs at least 150 questions "),
        ("dt", r"data\.json are kept whole when it is divided into 2 parts, so it needs at least 100 questions and 2 "),
        ("dvt", r"each needs 50; give at least 50 in each file"),
    ],
)
def test_the_error_tells_the_number_needed(tmp_path: Path, names: str, message: str) -> None:
    files = {
        key: write(tmp_path / f"{name}.json", [4] * 10, prefix=key)
        for key, name in {"d": "data", "v": "validation", "t": "test"}.items()
    }
    own = {key: files[key] for key in names}
    with pytest.raises(DataError, match=message):
        read_calibration_data(own["d"], validation=own.get("v"), test=own.get("t"))


def test_the_number_needed_is_enough_where_it_can_be_divided(tmp_path: Path) -> None:
    data = read_calibration_data(write(tmp_path / "data.json", [1] * 334))
    assert min(len(data.fitting), len(data.choosing), len(data.reporting)) == 50


def test_few_articles_are_warned_of_by_name(tmp_path: Path) -> None:
    fit = write(tmp_path / "fit.json", [60], prefix="f")
    one = write(tmp_path / "one.json", [160], prefix="only-")
    three, many = write(tmp_path / "three.json", [20] * 3), write(tmp_path / "many.json", [20] * 8)
    (line,) = read_calibration_data(fit, one, many).lines
    assert line.startswith("Warning: all 160 questions to choose on are of 'only-0', and none of other articles: ")
    assert line.endswith("; give questions of at least 8 articles")
    (line,) = read_calibration_data(fit, many, three).lines
    assert line.startswith("Warning: the 60 questions to report on are of 3 articles only, which say little about ")
    assert list(read_calibration_data(fit, many, many).lines) == []


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 3), st.integers(0, 9))
def test_articles_are_dealt_whole_and_to_every_part(sizes: list[int], ends: int, seed: int) -> None:
    examples = [Example(f"{k}-{i}", "q", "c", (), str(k)) for k, size in enumerate(sizes) for i in range(size)]
    parts = split_by_group(examples, article_of, [(i + 1) / (ends + 1) for i in range(ends)], seed)
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in examples)
    titles = [{e.title for e in part} for part in parts]
    assert sum(map(len, titles)) == len(sizes)
    assert sum(map(bool, parts)) == min(len(sizes), ends + 1)
