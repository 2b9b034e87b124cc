"""The reranker inside the package."""

import json

import pytest
from typer.testing import CliRunner

from dynamic_tinybert.runtime import Reranker
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.cli import app

DOCUMENTS = [
    "The river crosses the plain and reaches the sea near the old harbour.",
    "Emma, a novel about a clever matchmaker, was written by Jane Austen and published in 1815.",
    "Many novels of the time were published in three volumes and read aloud in the evening.",
    "Emma Thompson is an actress who was born in London in 1959.",
]
QUERIES = {"Who wrote Emma?": 1, "Where does the river end?": 0, "When was the actress born?": 3}


def test_it_is_small_and_whole() -> None:
    bundle = open_bundle(default_reranker())
    assert bundle.task == "sequence_classification"
    assert bundle.quantization["precision"] == "int8"
    assert bundle.default_length_config == "full"
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) <= 30e6
    assert "license: cc-by-sa-4.0" in (bundle.path / "README.md").read_text()


def test_its_length_configurations_say_what_they_cost() -> None:
    bundle = open_bundle(default_reranker())
    assert bundle.significance == "learnt"
    measured = [dict(named.measured or {}) for named in bundle.length_configs.values()]
    assert {"ndcg@10", "mrr@10", "ndcg@10_against_fp32"} <= measured[0].keys()
    assert all("ndcg@10_against_full" in figures for figures in measured[1:])
    fewer = [figures["macs_fewer"] for figures in measured]
    assert fewer == sorted(fewer)


@pytest.mark.parametrize(("query", "right"), QUERIES.items())
def test_it_ranks_at_every_length_configuration(query: str, right: int) -> None:
    reranker = Reranker.from_pretrained()
    for name in reranker.model.length_configs:
        ranked = reranker.rank(query, DOCUMENTS, length_config=name)
        assert ranked[0]["corpus_id"] == right, name
        assert all(0 < own["score"] < 1 for own in ranked)


def test_the_command_takes_it_without_a_bundle() -> None:
    done = CliRunner().invoke(
        app, ["rank", "Who wrote Emma?", "--documents", "-", "--top-n", "1", "--json"], input="\n".join(DOCUMENTS)
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["corpus_id"] == 1
