"""Each benchmark still runs: once, on a tiny model and a few questions, and it is in the index."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
INDEX = (BENCHMARKS / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Smoke:
    """A run of a script.

    Attributes:
        arguments: Of the command line; names in braces are inputs (see `inputs`), {output} a folder.
        shows: What the output must have.
        modules: Python packages without which it is skipped.
        programs: Programs without which it is skipped.
    """

    arguments: str
    shows: str
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


_COMPILER = ("c++",)
_SERVING = ("starlette", "uvicorn", "uvloop", "httptools", "prometheus_client")
_PEERS = "--questions 3 --timed 2 --passes 1 --starts 1"
SMOKE: Mapping[str, Smoke] = {
    "classification.accuracy": Smoke("{classifier} {classifier} {texts}", "| FP32 | half | "),
    "fixtures.random_checkpoint": Smoke("{checkpoint} {output}", ""),
    "fixtures.timing_bundles": Smoke("{bundle} {data}/squad-search.json {output} --questions 8", ""),
    "kernels.cpu_limits": Smoke("1", "GOPS INT8", programs=_COMPILER),
    "kernels.nodes": Smoke("{learnt} --length-config hard-thresholds --length 40 --threads 1", "| EncoderLayers |"),
    "kernels.ops": Smoke("--quick --threads 1 --blocks 1 --requests 1", "attention: stock, fused"),
    "kernels.predicted_loops": Smoke("", "avx2 on skylake", programs=("g++", "llvm-mca")),
    "kernels.products": Smoke("--rounds 1", "| limit |", programs=_COMPILER),
    "latency.budget_predictions": Smoke(
        "{data}/squad-search.json --bundle {learnt} --requests 4 --repeats 1 --threads 1", "| all | 4 | "
    ),
    "latency.busy_core": Smoke(
        "{learnt} --length-configs full --threads 1 --rounds 2 --block 4", "| full | installed |"
    ),
    "latency.callers": Smoke(
        "{learnt} {data}/squad-search.json --windows 4 --passes 1 --threads 1", "| batches of 8 |"
    ),
    "latency.efficiency": Smoke(
        "{data}/squad-search.json {learnt} --lengths 40 --windows 8 --passes 1 --threads 1", "| 40 tokens | full |"
    ),
    "latency.float_weights": Smoke(
        "{bundle} {data}/squad-search.json --windows 4 --repeats 1 --threads 1", "| float weights |"
    ),
    "latency.forks": Smoke("--bundle {learnt} --forks 3 --callers 2 --threads 1", "children, under load"),
    "latency.graph_kinds": Smoke("{learnt} {data}/squad-search.json --windows 2 --passes 1 --threads 1", "| elastic |"),
    "latency.latency_model": Smoke(
        "{learnt} {data}/squad-search.json --windows 4 --repeats 1 --fitted 6 --predicted 2 --threads 1",
        "median error: ",
    ),
    "latency.soak": Smoke("{learnt} --requests 100 --longest 64 --threads 1", "     100 "),
    "latency.without_plugin": Smoke(
        "{data}/squad-search.json --bundle {learnt} --windows 4 --passes 1 --threads 1", "| 1 | full | "
    ),
    "peers.against_peers": Smoke(
        f"measure {{checkpoint}} {{bundle}} {{data}}/squad-search.json --prepared {{prepared}} --json {{output}}.json"
        f" --threads 1 --block 2 --peers {{peers}} {_PEERS}",
        "| PyTorch FP32 |",
        modules=("optimum.intel", "nncf"),
    ),
    "peers.mask": Smoke("{output}", "places in", modules=("onnxruntime",), programs=("objdump", "readelf", "gcc")),
    "peers.paths": Smoke(
        f"{{learnt}} {{data}}/squad-search.json --configs full hard-thresholds --threads 1 {_PEERS}",
        "| full, ",
        programs=_COMPILER,
    ),
    "ranking.dropped_documents": Smoke("{judged} {dropping} --queries 6 --threads 1", "| full | 1 | "),
    "ranking.dropping_rules": Smoke(
        "{judged} {dropping} --risk 0.4 --places 3 --threads 1", "| 2 | final scores, 8 at a time | "
    ),
    "ranking.against_peers": Smoke(
        "{rankings} {reranker_checkpoint} {reranker} --calibration-data {pairs} --prepared {output} --output {output}"
        " --queries 4 --block 2 --num-samples 2 --threads 1",
        "| CrossEncoder, torch FP32 |",
        modules=("sentence_transformers", "optimum.intel", "optimum.onnxruntime", "datasets", "matplotlib"),
    ),
    "ranking.last_layer": Smoke("{reranker} {rankings} --pairs 8 --batch-sizes 3 --repeats 1 --threads 1", "| 3 | "),
    "ranking.make_groups": Smoke(
        "tests/data/paragraphs.json {output} --negatives 1 --among 5", "questions, each with 1 of", modules=("bm25s",)
    ),
    "ranking.make_rankings": Smoke(
        "tests/data/cases/hfans.json {output} --documents 5", "BM25's own order: nDCG@10 ", modules=("bm25s",)
    ),
    "selection.domains": Smoke(
        "{data}/domains.json {output} --bundle {scored} --domain reviews --questions 8 --report 8 --steps 2"
        " --shares 0:0.5 0:0.5,3:0.3",
        "| bundle | 0: 0.5, 3: 0.3 | ",
    ),
    "selection.competing_windows": Smoke(
        "{data}/squad-search.json --bundle {learnt} --questions 2 --threads 1 --length-config hard-thresholds",
        "same answers, %: ",
    ),
    "selection.competition_rules": Smoke(
        "{data}/squad-search.json --bundle {learnt} --per-article 2 --length-config hard-thresholds",
        "| probability | ",
    ),
    "selection.scorer_losses": Smoke("{data}/squad-search.json {scored} --questions 8", "| scored | "),
    "selection.search_strategies": Smoke("3 1", "step_by_step      as_pooled"),
    "selection.significance_ablation": Smoke(
        "{scored} {data} 40 --held-out 8 --variants 'as shipped' 'no replays'", "| no replays |"
    ),
    "selection.significance_kinds": Smoke("{learnt} {data}/squad-report.json --windows 4 --repeats 1", "| attention, "),
    "selection.trained_front": Smoke("{data} {scored} --questions 8 --costs 1.5", "| scored | 0: 0."),
    "selection.training_variants": Smoke("{checkpoint} {data} {output} 2 8 'fine-tuned only' front", "| front | "),
    "serving.bulk_kills": Smoke(
        "{data}/squad-search.json --bundle {learnt} --rows 600 --kills 2 --timed-rows 12 --passes 1 --threads 1",
        "output the same",
    ),
    "serving.http_overhead": Smoke(
        "{data}/squad-search.json --bundle {learnt} --tokens 24 --rounds 1 --seconds 0.5 --singles 5 --threads 1",
        "added to a single request",
        modules=_SERVING,
    ),
    "serving.kills": Smoke(
        "{data}/squad-search.json --bundle {learnt} --kills 1 --back 60 --drains 1 --threads 1",
        "\n0 faults",
        modules=_SERVING,
    ),
    "serving.open_loop": Smoke(
        "{data}/squad-search.json {output} --bundle {learnt} --questions 8 --seconds 1 --threads 1",
        "| 3x, budgets |",
        modules=("matplotlib",),
    ),
    "serving.open_loop_http": Smoke(
        "{data}/squad-search.json {output} --bundle {learnt} --questions 8 --seconds 1 --threads 1",
        "| 3x, budgets |",
        modules=(*_SERVING, "matplotlib"),
    ),
    "serving.shared_batches": Smoke("{learnt} --lengths 32 --rows 2 --passes 1 --threads 1", "| 32 | 2 | "),
    "serving.worker_counts": Smoke(
        "{data}/squad-search.json --bundle {learnt} --length-configs full --workers 1 --questions 8 --singles 5"
        " --rounds 1 --seconds 0.5 --threads 1",
        "\n| full | 1 | ",
        modules=_SERVING,
    ),
    "serving.soak": Smoke(
        "{data}/squad-search.json --bundle {learnt} --requests 600 --warm-up 200 --growth 100 --threads 1",
        "\n0 faults",
        modules=_SERVING,
    ),
}
PROGRAM = re.compile(r'^if __name__ == "__main__":$', re.MULTILINE)


def scripts() -> list[str]:
    """All programs but the worker, which other benchmarks start."""
    files = sorted(file for file in BENCHMARKS.rglob("*.py") if PROGRAM.search(file.read_text(encoding="utf-8")))
    return [".".join(f.relative_to(BENCHMARKS).with_suffix("").parts) for f in files if f.name != "worker.py"]


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def installed(module: str) -> bool:
    """Whether a module is there; its parent package may be missing, too."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """Random models of six layers, and questions.

    checkpoint; bundle: INT8, attention's significance; learnt: the same with random scorers; scored: FP32 with
    small scorers of layers 0, 1 and 3; data: a folder with the three files that scripts look for, and domains.json,
    whose questions are of two articles.
    """
    from dynamic_tinybert.export import export_model
    from dynamic_tinybert.modeling import Scorer

    from support.answerable import write_checkpoint, write_questions
    from support.tiny import tiny_bert, write_tiny_bundle

    folder = tmp_path_factory.mktemp("benchmarks")
    checkpoint = write_checkpoint(folder / "checkpoint", num_hidden_layers=6)
    data = folder / "data"
    data.mkdir()
    for seed, (name, count) in enumerate({"style-train": 48, "search": 12, "report": 12}.items()):
        write_questions(data / f"squad-{name}.json", count, seed)
    parts = {"reviews": "style-train", "places": "search"}
    articles = [json.loads((data / f"squad-{name}.json").read_text())["data"][0] for name in parts.values()]
    domains = [{**article, "title": title} for article, title in zip(articles, parts, strict=True)]
    (data / "domains.json").write_text(json.dumps({"data": domains}))
    questions = data / "squad-style-train.json"
    bundle = folder / "bundle"
    export_model(checkpoint, bundle, calibration_data=questions, validation=questions, num_samples=4, tune=False)
    run("fixtures.timing_bundles", bundle, data / "squad-search.json", folder / "timing", "--questions", "8")
    small = {layer: Scorer(32, width=8, kernel_sizes=(3,), heads=1, head_size=4) for layer in (0, 1, 3)}
    scored = write_tiny_bundle(folder / "scored", tiny_bert(num_hidden_layers=6), scorers=small)
    return {
        "checkpoint": checkpoint,
        "bundle": bundle,
        "learnt": folder / "timing" / "learnt",
        "scored": scored,
        "data": data,
    }


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """Random classifiers with one output and with two, as bundles, and what they read."""
    from dynamic_tinybert.runtime import LengthConfig

    from support.classifiers import WORDS, classifier_bundle, save_classifier, texts, tiny_classifier
    from support.rankings import put_heads, random_head, write_rankings

    folder = tmp_path_factory.mktemp("classifiers")
    reranker = tiny_classifier(1)
    half = {"half": LengthConfig((1, 0.5, 0.5))}
    documents = texts(12)
    rankings = [{"query": word, "documents": documents, "relevant": [i]} for i, word in enumerate(WORDS[:6])]
    pairs = [{"text": word, "text_pair": document} for word, document in zip(WORDS, documents, strict=False)]
    for name, rows in {"rankings": rankings, "pairs": pairs}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "texts.tsv").write_text("\n".join(f"{text}\t{i % 2}" for i, text in enumerate(documents)))
    return {
        "reranker_checkpoint": save_classifier(folder / "checkpoint", reranker),
        "reranker": classifier_bundle(folder / "reranker", reranker, half),
        "classifier": classifier_bundle(folder / "classifier", tiny_classifier(2), half),
        "rankings": folder / "rankings.jsonl",
        "pairs": folder / "pairs.jsonl",
        "texts": folder / "texts.tsv",
        "judged": write_rankings(folder / "judged.jsonl", 24, 13, judged=True),
        "dropping": put_heads(classifier_bundle(folder / "dropping", reranker), {"full": random_head(1, {10: 0.1})}),
    }


@pytest.fixture(scope="module")
def prepared(inputs: Mapping[str, Path | str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """The peers' models, of those peers that are installed."""
    peers = ["pytorch", "optimum_intel", *(["onnx_runtime"] if installed("onnxruntime") and installed("onnx") else [])]
    folder = tmp_path_factory.mktemp("prepared")
    questions = (f"{inputs['data']}/squad-{name}.json" for name in ("style-train", "search"))
    data = ["--calibration-data", next(questions), "--validation-data", next(questions), "--num-samples", "2"]
    run("peers.against_peers", "prepare", inputs["checkpoint"], folder, *data, "--peers", *peers)
    return {"prepared": folder, "peers": " ".join(peers)}


@pytest.mark.slow
@pytest.mark.parametrize("script", SMOKE)
def test_a_script_runs_on_tiny_inputs(script: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    smoke = SMOKE[script]
    for module in smoke.modules:
        if not installed(module):
            pytest.skip(f"{module} is not installed; the extra `benchmarks` brings it")
    for program in smoke.programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    needed = "classifiers" if script.startswith(("classification.", "ranking.")) else "inputs"
    places = {**request.getfixturevalue(needed), "output": tmp_path / "output"}
    if "{prepared}" in smoke.arguments:
        places |= request.getfixturevalue("prepared")
    quoted = re.findall(r"'[^']*'|\S+", smoke.arguments)
    filled = [word.strip("'").format_map(places) for word in quoted]
    arguments = [part for word, text in zip(quoted, filled, strict=True) for part in split(word, text)]
    shown = run(script, *arguments)
    shutil.rmtree(tmp_path)  # a random checkpoint has hundreds of megabytes
    assert smoke.shows in shown


def split(word: str, text: str) -> list[str]:
    """The peers are several arguments."""
    return text.split() if word == "{peers}" else [text]


def test_every_script_is_in_the_index_and_is_run() -> None:
    assert scripts() == sorted(SMOKE)
    listed = re.findall(r"^\| `(\w+)/(\w+)\.py` \|", INDEX, re.MULTILINE)
    assert sorted(f"{folder}.{name}" for folder, name in listed) == scripts()


def test_documents_name_scripts_that_are_there() -> None:
    texts = [file.read_text(encoding="utf-8") for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]]
    found = {path for text in texts for path in re.findall(r"benchmarks(?:/\w+)+\.py(?!`\s+at\s+[0-9a-f]{7})", text)}
    found |= {
        name.replace(".", "/") + ".py" for text in texts for name in re.findall(r"-m (benchmarks(?:\.\w+)+)", text)
    }
    assert found
    assert [path for path in sorted(found) if not (ROOT / path).is_file()] == []


@pytest.mark.slow
def test_a_worker_ranks_as_the_reranker(classifiers: Mapping[str, Path | str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dynamic_tinybert import Reranker
    from dynamic_tinybert.runtime.bundles.bundle import open_bundle
    from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import read_rankings

    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.ranking.systems import ours

    bundle, rankings = open_bundle(classifiers["reranker"]), read_rankings(classifiers["rankings"])
    reranker = Reranker.from_pretrained(bundle.path)
    for config, system in zip(("full", "half"), ours(bundle, ("full", "half")), strict=True):
        worker = system.start(threads=1)
        try:
            asked = [{"query": ranking.query, "documents": ranking.documents} for ranking in rankings]
            reply = worker.ask(rank=asked, top=3)
        finally:
            worker.end()
        expected = [reranker.rank(own.query, own.documents, 3, length_config=config) for own in rankings]
        assert reply["orders"] == [[found["corpus_id"] for found in order] for order in expected]
        assert len(reply["seconds"]) == len(rankings)
        assert min(reply["seconds"]) > 0


def test_systems_take_turns_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.peers.turns import ratio_of_blocks, turns

    taken = list(turns({"a": 5, "b": 3}, 2, "test"))
    assert taken == [
        ("a", range(2)),
        ("b", range(2)),
        ("b", range(2, 3)),
        ("a", range(2, 4)),
        ("a", range(4, 5)),
    ]
    drift = np.array([[1.0, 1.0, 4.0, 4.0, 2.0, 2.0]])  # the machine's speed, the same for both
    assert ratio_of_blocks(0.5 * drift, drift, 2) == (0.5, 0.5, 0.5)


def test_op_graphs_give_their_references(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels.op_graphs import variants
    from benchmarks.kernels.ops import measure

    table = variants(24, 192, (1.0, 0.5))
    samples = measure(table, threads=1, blocks=1, requests=1)
    assert samples.keys() == table.keys()
    assert all((times > 0).all() for times in samples.values())
