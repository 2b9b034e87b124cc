"""The callable that Ray Data makes actors of, without a cluster."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert import LengthConfig, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import InvalidInputError, LengthConfigError
from dynamic_tinybert.serving.ray import BatchAnswerer

from support.tiny import tiny_bundle

pa = pytest.importorskip("pyarrow")

NEW = {"answer": pa.string(), "score": pa.float64(), "start": pa.int64(), "end": pa.int64(), "error": pa.string()}
ROWS: dict[str, list[Any]] = {
    "question": ["what was in the box?", "where was it?", "who?", None, "of", ""],
    "context": ["the fox was in the box", "", "the cat " * 300, "the hat", "it was in the hat", "the fox"],
    "weight": [1, None, 3, 4, 5, 6],
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), {"half": LengthConfig((1, 0.7, 0.4))})


@pytest.fixture(scope="module")
def expected(bundle: Path) -> list[dict[str, Any] | None]:
    """The direct answer to each row, None for those that have none."""
    answerer = QuestionAnswerer.from_pretrained(bundle)
    answers: list[dict[str, Any] | None] = []
    for question, context in zip(ROWS["question"], ROWS["context"], strict=True):
        try:
            answers.append(dict(answerer(question=question, context=context)))
        except InvalidInputError:
            answers.append(None)
    assert [answer is None for answer in answers] == [False, True, False, True, False, True]
    return answers


def check(table: Any, expected: list[dict[str, Any] | None]) -> None:  # noqa: ANN401 - a pyarrow.Table
    assert {name: table.schema.field(name).type for name in NEW} == NEW
    for row, answer in zip(table.to_pylist(), expected, strict=True):
        assert (row["error"] is None) == (answer is not None)
        if answer is None:
            assert [row[name] for name in ("answer", "score", "start", "end")] == [None] * 4
        else:
            assert row["score"] == pytest.approx(answer["score"], rel=1e-5)
            assert {name: row[name] for name in ("answer", "start", "end")} == {
                name: answer[name] for name in ("answer", "start", "end")
            }


def test_a_table_keeps_its_columns_and_gets_the_answers(bundle: Path, expected: list[dict[str, Any] | None]) -> None:
    batch = pa.table(ROWS)
    table = BatchAnswerer(bundle)(batch)
    assert table.select(batch.column_names) == batch
    check(table, expected)
    errors = table.column("error").to_pylist()
    assert errors[3] == "it has no 'question'"
    assert "empty" in errors[5]


def test_a_dictionary_of_arrays(bundle: Path, expected: list[dict[str, Any] | None]) -> None:
    batch = {name: np.array(values, dtype=object) for name, values in ROWS.items()}
    table = BatchAnswerer(bundle)(batch)
    check(table, expected)
    assert table.column("weight").to_pylist() == ROWS["weight"]
    fixed = BatchAnswerer(bundle)({name: np.array(ROWS[name][:1]) for name in ("question", "context")})
    check(fixed, expected[:1])


def test_a_batch_without_any_answer_has_the_same_schema(bundle: Path) -> None:
    answerer = BatchAnswerer(bundle, top_k=2)
    good = answerer(pa.table({"question": ["who?"], "context": ["the fox"]}))
    bad = answerer(pa.table({"question": ["who?"], "context": pa.array([None], pa.string())}))
    none = answerer(pa.table({"question": pa.array([], pa.string()), "context": pa.array([], pa.string())}))
    assert good.schema == bad.schema == none.schema
    assert none.num_rows == 0
    answers = json.loads(good.column("answers")[0].as_py())
    assert answers[0]["answer"] == good.column("answer")[0].as_py()
    assert len(answers) == 2


def test_values_that_are_no_text_are_errors_of_their_rows(bundle: Path) -> None:
    not_unicode = pa.array([b"the \xff fox", b"the fox"]).view(pa.string())
    table = BatchAnswerer(bundle)(pa.table({"question": ["who?", "who?"], "context": not_unicode}))
    assert [error is None for error in table.column("error").to_pylist()] == [False, True]
    table = BatchAnswerer(bundle)({"question": np.array([1, 2]), "context": np.array(["the fox", "the cat"])})
    assert table.column("error").to_pylist() == [f"its 'question' must be text, not {n}" for n in (1, 2)]


def test_names_of_columns(bundle: Path) -> None:
    batch = pa.table({"q": ["who?"], "text": ["the fox"], "answer": ["the truth"]})
    table = BatchAnswerer(bundle, "q", "text", prefix="our_", length_config="half")(batch)
    assert table.column_names == [*batch.column_names, *(f"our_{name}" for name in NEW)]
    with pytest.raises(InvalidInputError, match="has a column 'answer' already; give prefix"):
        BatchAnswerer(bundle, "q", "text")(batch)
    with pytest.raises(InvalidInputError, match="no column 'context'; its columns are 'question'"):
        BatchAnswerer(bundle)(pa.table({"question": ["who?"]}))


def test_batches_that_are_none(bundle: Path) -> None:
    answerer = BatchAnswerer(bundle)
    with pytest.raises(InvalidInputError, match=r"not list; give map_batches batch_format='pyarrow'"):
        answerer([("who?", "the fox")])
    batch = {"question": np.array(["who?"]), "context": np.array(["the fox"]), "vector": np.zeros((1, 3))}
    with pytest.raises(InvalidInputError, match=r"'vector' is no plain column of Arrow .*batch_format='pyarrow'"):
        answerer(batch)


def test_options_are_checked_when_the_bundle_is_loaded(bundle: Path) -> None:
    with pytest.raises(LengthConfigError, match="'quick'"):
        BatchAnswerer(bundle, length_config="quick")
    with pytest.raises(InvalidInputError, match="top_k"):
        BatchAnswerer(bundle, top_k=0)


def test_the_class_needs_no_ray(bundle: Path) -> None:
    program = f"""
import sys
sys.modules["ray"] = None
import numpy as np
from dynamic_tinybert.serving.ray import BatchAnswerer
batch = dict(question=np.array(["who?"]), context=np.array(["the fox"]))
print(BatchAnswerer({str(bundle)!r})(batch).column("error").to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[None]\n"), done.stderr


def test_the_class_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(BatchAnswerer)) is BatchAnswerer
