"""Calibrate the dropping of documents: fit an early head for each length configuration, and bound its risk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from dynamic_tinybert.calibration.data import shuffled, split_by_group
from dynamic_tinybert.calibration.recalibrated import CARD
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.bundles.manifest import as_json, read_manifest, seal
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.common.publish import publishing, writing
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import BATCH_SIZE
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import (
    DOCUMENT_DROPPING,
    EarlyHead,
    EarlyHeads,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_evaluation import check_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker

from .bound import CONFIDENCE, fewest_queries, largest_mean
from .head_fitting import choose_layers, fit_head, kept, macs_share, margin_of
from .lost_relevance import Relevance
from .observed import Observed, Observer

PLACES = (1, 3, 5, 10, 20, 50)
"""Numbers of first places that get a margin; fewer places than one of these use its margin."""

FEWEST_TO_FIT = 20
"""Queries that a head is fitted on at least."""

_FITTING, _MOST_TO_FIT = 0.35, 300  # a share of a single file, and as many queries whose states fit into memory
_ROUNDING = 1e-4  # early scores of a document differ by less when it runs in stages, or beside other documents


def calibrate_documents(
    bundle: str | Path,
    data: str | Path,
    *,
    validation: str | Path | None = None,
    risk: float | Mapping[str, float] = 0.01,
    seed: int = 0,
    num_threads: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> EarlyHeads:
    """Let a reranker's documents compete: fit early heads, choose margins for a risk, and store both in the bundle.

    Heads learn the model's own final logits. What is lost is measured by judgements of relevance; where no query of a
    file is judged, by the model's own probabilities. For each named length configuration a head is fitted on some
    queries, and its margins are chosen on others. The bundle is replaced at the very end; its length configurations
    stay. A later calibration of length configurations removes the heads.

    Args:
        bundle: Folder of a bundle with one output.
        data: Rankings in a form that `read_rankings` reads, with lists as long as those to rank later.
        validation: Rankings to choose margins on; by default some groups of `data`. Queries should be independent
            of each other, and have other groups than those in `data`.
        risk: Largest share of the relevance in the first places that is lost (`Relevance`), expected for a further
            query drawn like those that margins are chosen on. It holds with a probability of `CONFIDENCE` over the draw
            of these. Or a risk for each length configuration that is to drop documents, by name.
        seed: Decides which groups are set aside.
        num_threads: CPU threads; by default what the process's CPU affinity and its cgroup's quota allow.
        say: Called with a line of text for each step.

    Raises:
        BundleError: The bundle is missing, damaged or of a newer format.
        DataError: A file cannot be used, or has too few queries; the message says how many are needed.
        InvalidInputError: A risk is out of range or for an unknown length configuration, the model has several outputs,
            or it is a regression and nothing is judged.
        StorageError: The bundle could not be written.
    """
    source = open_bundle(bundle)
    risks = dict(risk) if isinstance(risk, Mapping) else dict.fromkeys(source.length_configs, risk)
    _check_risks(risks, source)
    properties = {} if num_threads is None else {"INFERENCE_NUM_THREADS": num_threads}
    model = LengthAdaptiveModel(source, ov_config=properties)
    reranker = Reranker(model, function_to_apply="none")  # refuses models of another task or with several outputs
    fitting, bounding = _split(data, validation, seed)
    judged = [ranking for ranking in bounding if any(ranking.grades)]
    if not judged and reranker.labels.problem_type == "regression":
        raise InvalidInputError(
            "the outputs of a regression are no probabilities of relevance; give rankings with 'relevant' or 'grades'"
        )
    bounding = judged or bounding
    _require(len(fitting), len(bounding), min(risks.values()))
    check_rankings(reranker, [*fitting, *bounding])
    by_what = "judgements" if judged else "the model's own probabilities"
    say(f"Fitting on {len(fitting)} queries, bounding what is lost by {by_what} on {len(bounding)} others")
    heads = {name: _head(model, name, fitting, bounding, own, say) for name, own in risks.items()}
    found = EarlyHeads(heads, CONFIDENCE, len(bounding), Path(validation or data).name)
    _write(source, found)
    return found


def _check_risks(risks: Mapping[str, float], bundle: Bundle) -> None:
    for name, risk in risks.items():
        if name not in bundle.length_configs:
            known = ", ".join(bundle.length_configs)
            raise InvalidInputError(f"there is a risk for {name!r}, but the bundle has only {known}")
        if not 0 < risk < 1:
            raise InvalidInputError(f"risk is {risk}; give a share between 0 and 1, such as 0.01")
    if not risks:
        raise InvalidInputError("there is no risk; give one for at least one length configuration")


def _split(data: str | Path, validation: str | Path | None, seed: int) -> tuple[list[Ranking], list[Ranking]]:
    """Queries to fit on, and queries to bound the risk on, of which no two share a group.

    Raises:
        DataError: A group is in both files.
    """
    rankings = read_rankings(data, judged=False)
    if validation is None:
        share = min(_FITTING, _MOST_TO_FIT / len(rankings))
        fitting, bounding = split_by_group(rankings, _group_of, (share,), seed)
    else:
        fitting, bounding = rankings, read_rankings(validation, judged=False)
        if both := {*map(_group_of, fitting)} & {*map(_group_of, bounding)}:
            raise DataError(
                f"{len(both)} groups are in both files, such as {min(both)[:60]!r}: margins must be chosen on queries "
                "that no head was fitted on; give files that share no group, or leave out the validation file"
            )
    return shuffled(fitting, seed)[:_MOST_TO_FIT], bounding


def _require(fitting: int, bounding: int, risk: float) -> None:
    """Raise DataError if there are too few queries."""
    needed = fewest_queries(risk)
    if fitting < FEWEST_TO_FIT or bounding < needed:
        raise DataError(
            f"too few queries: {fitting} to fit on and {bounding} to bound the risk on, but {FEWEST_TO_FIT} "
            f"and, for a risk of {risk:g} with {CONFIDENCE:.0%} confidence, {needed} are needed; groups stay whole; "
            "give more of them, or allow a larger risk"
        )


def _group_of(ranking: Ranking) -> str:
    return ranking.group or ranking.query


def _head(
    model: LengthAdaptiveModel,
    name: str,
    fitting: Sequence[Ranking],
    bounding: Sequence[Ranking],
    risk: float,
    say: Callable[[str], None],
) -> EarlyHead:
    """The head of a length configuration with its margins."""
    observer = Observer(model, name)
    seen = _observed(observer, fitting)
    places = max((n for n in PLACES if n <= TOP and _longer(seen, n)), default=0)
    if not places:
        raise DataError("every query has a single document; documents compete only where a query has several")
    layers = choose_layers(seen, [_group_of(ranking) for ranking in fitting], places, risk)
    head = fit_head(seen, layers)
    del seen
    held_out = _observed(observer, bounding, head.layers)
    margins: dict[int, float] = {}
    measured: dict[str, dict[str, float]] = {"dropped": {}, "lost": {}, "macs_fewer": {}}
    for count in PLACES:
        own = _longer(held_out, count)
        mean_of_these = largest_mean(len(own), risk)
        if mean_of_these is None:
            continue
        margins[count] = margin_of(own, head, count, mean_of_these) + _ROUNDING
        stay = [kept(one, head, count, margins[count]) for one in own]
        measured["dropped"][str(count)] = fmean(1 - float(some.mean()) for some in stay)
        measured["lost"][str(count)] = fmean(
            Relevance.of(one, count).lost(some) for one, some in zip(own, stay, strict=True)
        )
        measured["macs_fewer"][str(count)] = 1 / fmean(
            macs_share(one, head.layers, some) for one, some in zip(own, stay, strict=True)
        )
    if not margins:
        raise DataError(f"fewer than {fewest_queries(risk)} queries have more than one document; give longer lists")
    shares = ", ".join(f"{share:.0%} for {count}" for count, share in measured["dropped"].items())
    say(f"{name}: the head is after {head.layers} layers; documents that leave, by places: {shares}")
    return replace(head, margins=margins, risk=risk, measured=measured)


def _longer(observed: Sequence[Observed], places: int) -> list[Observed]:
    """The queries with more different documents than places; in the others nothing can be dropped."""
    return [own for own in observed if len(own.final) > places]


def _observed(observer: Observer, rankings: Sequence[Ranking], layers: int | None = None) -> list[Observed]:
    """What the model computes for all queries; with `layers`, only the states after so many layers are kept."""
    found = []
    for ranking in tqdm(rankings, unit="query", disable=None):
        own = observer(ranking, batch_size=BATCH_SIZE)
        found.append(own if layers is None else own.only(layers))
    return found


def _write(source: Bundle, heads: EarlyHeads) -> None:
    """Replace a bundle by itself with these heads."""
    manifest = read_manifest(source.path)
    with publishing(source.path, force=True) as target, writing(target):
        for file in (*manifest["files"], CARD):
            if (source.path / file).is_file():
                shutil.copyfile(source.path / file, target / file)
        seal(target, as_json({**manifest, DOCUMENT_DROPPING: heads.to_json()}))
