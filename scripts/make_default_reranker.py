"""Build the reranker that is shipped in the package: INT8, calibrated, its configurations chosen by nDCG@10.

    python scripts/make_default_reranker.py CHECKPOINT GROUPS.jsonl CHOOSING.jsonl BOUNDING.jsonl REPORTING.jsonl

CHECKPOINT is the result of `dynamic-tinybert train` on GROUPS (`python -m benchmarks.ranking.make_groups` on
squad-style-train.json), from which pairs are drawn for INT8 ranges and significance. CHOOSING, BOUNDING and REPORTING
are rankings (`python -m benchmarks.ranking.make_rankings`) of other articles. `calibrate` finds a configuration for
each of several losses of closeness; of these, `accurate`, `balanced` and `fast` are the fastest that lose at most 0.25,
0.5 and 1.5 % of nDCG@10 on CHOOSING. Then `balanced` and `fast` learn to drop documents, by heads fitted on CHOOSING
and margins chosen on BOUNDING. All figures of configurations in the manifest are of REPORTING, with all documents. This
takes an hour on 2 idle cores; less with fewer `--queries`, `--bounding-queries` and `--budget-minutes`. The bundle is
made in build/ and replaces the old one at the end; an interrupted run resumes its calibration.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dynamic_tinybert.calibration import calibrate, calibrate_documents
from dynamic_tinybert.calibration.data import shuffled
from dynamic_tinybert.calibration.recalibrated import replace_length_configs
from dynamic_tinybert.export import export_model
from dynamic_tinybert.runtime import LengthAdaptiveModel, Reranker
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.publish import publishing
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_evaluation import (
    RankingEvaluation,
    evaluate_rankings,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "runtime" / "default_reranker"
CARD = ROOT / "scripts" / "default_reranker.md"
WORK = ROOT / "build" / "default_reranker"
FP32 = ROOT / "build" / "default_reranker_fp32"
SOURCE = {
    "model": "MiniLM-L6-H384 (sentence-transformers/all-MiniLM-L6-v2), fine-tuned for question answering, then ranking",
    "license": "cc-by-sa-4.0",
}
CLOSENESS_LOSSES = (0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
NDCG_LOSSES = {"accurate": 0.25, "balanced": 0.5, "fast": 1.5}  # percent of the nDCG@10 of `full`
RISKS = {"balanced": 0.005, "fast": 0.01}  # share of the relevance in the first places that dropped documents may hold
FITTING_QUERIES = 300  # of heads
PAIRS = 2000
DOCUMENTS_OF_A_QUERY = 5
NUM_THREADS = 2


def main() -> None:
    """Export, calibrate, choose, measure, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "groups", "choosing", "bounding", "reporting"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--queries", type=int, default=300, help="to choose on, and to report on")
    parser.add_argument("--bounding-queries", type=int, default=900, help="to choose margins on")
    parser.add_argument("--budget-minutes", type=float, default=15, help="of the calibration")
    parser.add_argument("--evaluations", type=int, help="end the calibration's search after this many configurations")
    parser.add_argument("--fitting-steps", type=int, help="of scorers; by default as many as the budget allows")
    arguments = parser.parse_args()
    groups, choosing, reporting = (
        shuffled(read_rankings(path), 0) for path in (arguments.groups, arguments.choosing, arguments.reporting)
    )
    WORK.parent.mkdir(exist_ok=True)
    files = [
        write_pairs(WORK.with_name(f"reranker-{name}.jsonl"), rankings)
        for name, rankings in (("fitting", groups), ("choosing", choosing), ("reporting", reporting))
    ]
    fitting, validation, test = files
    if not WORK.with_name(f"{WORK.name}.calibration").exists():
        export_model(arguments.checkpoint, WORK, calibration_data=fitting, validation=validation, force=True, say=print)
        export_model(arguments.checkpoint, FP32, precision="fp32", force=True)
        shutil.copyfile(CARD, WORK / "README.md")
    limits = {f"loses-{loss}": loss for loss in CLOSENESS_LOSSES}
    calibrate(
        WORK,
        fitting,
        validation=validation,
        test=test,
        limits=limits,
        budget_minutes=arguments.budget_minutes,
        evaluations=arguments.evaluations,
        fitting_steps=arguments.fitting_steps,
        resume=True,
        num_threads=NUM_THREADS,
        say=print,
    )
    reranker = Reranker.from_pretrained(WORK, num_threads=NUM_THREADS)
    chosen = choose(reranker, choosing[: arguments.queries])
    fp32 = Reranker.from_pretrained(FP32, num_threads=NUM_THREADS)
    named = with_figures(reranker, fp32, chosen, reporting[: arguments.queries], arguments.reporting.name)
    replace_length_configs(open_bundle(WORK), named, SOURCE)
    if risks := {name: risk for name, risk in RISKS.items() if name in named}:
        heads = write_rankings(WORK.with_name("reranker-heads.jsonl"), choosing[:FITTING_QUERIES])
        rankings = shuffled(read_rankings(arguments.bounding), 0)[: arguments.bounding_queries]
        margins = write_rankings(WORK.with_name(arguments.bounding.name), rankings)
        calibrate_documents(WORK, heads, validation=margins, risk=risks, num_threads=NUM_THREADS, say=print)
        files += [heads, margins]
    for file in files:
        file.unlink()
    with publishing(TARGET, force=True) as place:
        shutil.copytree(WORK, place, dirs_exist_ok=True)
    shutil.rmtree(WORK)
    shutil.rmtree(FP32)


def write_pairs(path: Path, rankings: Sequence[Ranking]) -> Path:
    """Write pairs of a query and one of its first documents, without labels."""
    pairs = (
        {"text": own.query, "text_pair": text, "group": own.group or own.query}
        for own in rankings
        for text in own.documents[:DOCUMENTS_OF_A_QUERY]
    )
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in islice(pairs, PAIRS))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_rankings(path: Path, rankings: Sequence[Ranking]) -> Path:
    """Write rankings in the form that `read_rankings` reads."""
    fields = ("id", "query", "documents", "grades", "group")
    lines = (json.dumps({name: getattr(own, name) for name in fields}, ensure_ascii=False) + "\n" for own in rankings)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def choose(reranker: Reranker, rankings: Sequence[Ranking]) -> dict[str, str]:
    """For each name, the configuration with the fewest MACs among those that lose little enough nDCG@10."""
    found = {name: evaluate_rankings(reranker, rankings, length_config=name) for name in reranker.model.length_configs}
    by_cost = sorted(found, key=lambda name: macs(reranker.model, name))
    for name in by_cost:
        print(f"{name:16} {ndcg(found[name]):.2f} nDCG@10, {macs(reranker.model, name) / 1e6:.0f} MMACs")
    least = {name: ndcg(found["full"]) * (1 - loss / 100) for name, loss in NDCG_LOSSES.items()}
    return {
        name: next(own for own in by_cost if own == "full" or ndcg(found[own]) >= bound)
        for name, bound in least.items()
    }


def with_figures(
    reranker: Reranker, fp32: Reranker, chosen: Mapping[str, str], rankings: Sequence[Ranking], data: str
) -> dict[str, NamedLengthConfig]:
    """The named configurations with nDCG@10, MRR@10 and what they lose, in their order; without any that are `full`."""
    configs = reranker.model.bundle.length_configs
    names = {"full": "full", **{name: own for name, own in chosen.items() if own != "full"}}
    found = {own: evaluate_rankings(reranker, rankings, length_config=own) for own in dict.fromkeys(names.values())}
    exact = evaluate_rankings(fp32, rankings, length_config="full")
    described = f"{data}, {len(rankings)} queries with {max(exact.query_documents)} documents"
    named = {}
    for name, own in names.items():
        against, compared = ("fp32", exact) if name == "full" else ("full", found["full"])
        figures = {
            **found[own].means,
            f"ndcg@10_against_{against}": _rounded(paired_bootstrap(found[own].query_ndcg, compared.query_ndcg)),
            f"mrr@10_against_{against}": _rounded(paired_bootstrap(found[own].query_mrr, compared.query_mrr)),
            "query_p50_ms": round(found[own].latency_ms(50), 1),
            "rankings": described,
        }
        print(name, figures)
        named[name] = replace(configs[own], measured={**(configs[own].measured or {}), **figures})
    return named


def macs(model: LengthAdaptiveModel, name: str) -> float:
    """Mean MACs of a pair at a configuration, as the calibration measured them."""
    return float((model.length_configs[name].measured or {})["macs"])


def ndcg(evaluation: RankingEvaluation) -> float:
    """Mean nDCG@10 in percent."""
    return evaluation.means["ndcg@10"]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


if __name__ == "__main__":
    main()
