"""The snippets of docs/classification.md and docs/ranking.md run as they stand, on tiny models."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.classifiers import classifier_bundle, save_classifier, texts, tiny_classifier

DOCS = Path(__file__).parents[1] / "docs"
FENCED = re.compile(r"```(\w+)\n(.*?)\n```", re.DOTALL)
BLOCKS = [
    (document, language, text)
    for document in ("classification", "ranking")
    for language, text in FENCED.findall((DOCS / f"{document}.md").read_text())
]
IDENTIFIERS = [f"{document}-{language}" for document, language, _ in BLOCKS]

COMMAND = """#!/bin/sh
# The command itself, with less to do. A random model may have no faster configuration that is as good.
case "$1" in
export) exec {command} "$@" --no-tune ;;
calibrate)
    {command} "$@" --evaluations 1 --budget-minutes 0.5 2>errors.txt && exit
    grep -q "minutes were too short: of .* length configurations" errors.txt || {{ cat errors.txt >&2; exit 1; }} ;;
*) exec {command} "$@" ;;
esac
"""


def write_inputs(folder: Path) -> None:
    """Data of the names that the documents use."""
    some = texts(400, words=(4, 12))
    (folder / "texts.tsv").write_text("".join(f"{text}\t{i % 2}\n" for i, text in enumerate(some)))
    (folder / "documents.txt").write_text("\n".join(some[:5]))
    pairs = [{"text": " ".join(text.split()[:3]), "text_pair": text} for text in some]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (example,) = [text for document, language, text in BLOCKS if language == "json"]
    (folder / "rankings.jsonl").write_text(example + "\n")


@pytest.mark.parametrize(
    ("document", "language", "text"), [b for b in BLOCKS if b[1] == "python"], ids=["classification", "ranking"]
)
def test_python(document: str, language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classifier_bundle(tmp_path / "classifier", tiny_classifier(3))
    classifier_bundle(tmp_path / "reranker", tiny_classifier(1))
    names: dict[str, Any] = {}
    exec(compile(text, f"{document}.md", "exec"), names)
    if document == "ranking":
        assert names["scores"].shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "language", "text"), [b for b in BLOCKS if b[1] == "bash"], ids=["classification", "ranking"]
)
def test_shell(document: str, language: str, text: str, tmp_path: Path) -> None:
    save_classifier(tmp_path / "CLASSIFIER", tiny_classifier(2))
    save_classifier(tmp_path / "CROSS_ENCODER", tiny_classifier(1))
    write_inputs(tmp_path)
    command = tmp_path / "bin" / "dynamic-tinybert"
    command.parent.mkdir()
    command.write_text(COMMAND.format(command=Path(sys.executable).with_name("dynamic-tinybert")))
    command.chmod(0o755)
    environment = {**os.environ, "PATH": os.pathsep.join([str(command.parent), os.environ["PATH"]])}
    done = subprocess.run(
        ["bash", "-eux", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_of_block_is_there() -> None:
    assert sorted(IDENTIFIERS) == sorted(
        ["classification-bash", "classification-python", "ranking-bash", "ranking-python", "ranking-json"]
    )
