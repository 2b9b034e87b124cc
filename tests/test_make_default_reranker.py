"""The script that makes the embedded reranker, on a tiny one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.runtime import LengthConfig, Reranker
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle, write_manifest
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import early_heads_of

from support.classifiers import save_classifier, texts, tiny_classifier

SCRIPTS = Path(__file__).parents[1] / "scripts"


def rankings(file: Path, queries: int, seed: int) -> Path:
    """Queries with eight random documents, of which one is relevant."""
    random = np.random.default_rng(seed)
    found = iter(texts(9 * queries, seed, words=(20, 40)))
    lines = []
    for number in range(queries):
        query = f"{number % 4} {next(found)[:12]}"
        documents = [next(found) for _ in range(8)]
        relevant = [int(random.integers(8))]
        row = {"query": query, "documents": documents, "relevant": relevant, "group": f"{seed} {number}"}
        lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n")
    return file


def gives_two_configurations(bundle: Path, *_: object, **__: object) -> None:
    """In place of the search: a configuration that drops little and one that drops most tokens."""
    source = open_bundle(bundle)
    configs = {"full": (1.0, 1.0, 1.0), "loses-0.1": (0.9, 0.9, 0.9), "loses-3.2": (0.1, 0.02, 0.02)}
    write_manifest(
        bundle,
        significance=source.significance,
        length_configs={
            name: NamedLengthConfig(LengthConfig(ratios), {"macs": 1e6 * sum(ratios)})
            for name, ratios in configs.items()
        },
        quantization=source.quantization,
        versions=source.versions,
        source=source.source,
        task=source.task,
    )


@pytest.mark.slow
def test_configurations_are_named_by_what_they_lose_of_ndcg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    import make_default_reranker as script

    monkeypatch.setattr(script, "TARGET", tmp_path / "default_reranker")
    monkeypatch.setattr(script, "WORK", tmp_path / "build" / "reranker")
    monkeypatch.setattr(script, "FP32", tmp_path / "build" / "fp32")
    monkeypatch.setattr(script, "RISKS", {"balanced": 0.3})
    monkeypatch.setattr(script, "calibrate", gives_two_configurations)  # whether one is faster depends on the machine
    checkpoint = save_classifier(tmp_path / "checkpoint", tiny_classifier(1))
    names = ("groups", "choose", "bound", "report")
    files = [rankings(tmp_path / f"{name}.jsonl", 40, seed) for seed, name in enumerate(names)]
    options = ["--queries", "20"]
    monkeypatch.setattr(sys, "argv", ["make", str(checkpoint), *map(str, files), *options])
    script.main()

    bundle = open_bundle(tmp_path / "default_reranker")
    assert bundle.task == "sequence_classification"
    assert bundle.quantization["precision"] == "int8"
    assert "full" in bundle.length_configs
    assert bundle.length_configs.keys() <= {"full", "accurate", "balanced", "fast"}
    for named in list(bundle.length_configs.values())[1:]:
        assert named.config == LengthConfig((0.9, 0.9, 0.9))  # the other loses too much
    assert "license: cc-by-sa-4.0" in (bundle.path / "README.md").read_text()
    for name, named in bundle.length_configs.items():
        figures = dict(named.measured or {})
        assert figures["rankings"] == "report.jsonl, 20 queries with 8 documents"
        assert ("ndcg@10_against_full" in figures) == (name != "full")
        assert ("ndcg@10_against_fp32" in figures) == (name == "full")
    heads = early_heads_of(bundle)
    assert (["balanced"] if "balanced" in bundle.length_configs else []) == [*(heads.heads if heads else ())]
    assert Reranker.from_pretrained(bundle.path).rank("a", ["b", "c"])
    assert list((tmp_path / "build").iterdir()) == []
