"""Calibrate the dropping of documents: fit an early head for each length configuration, and bound its risk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
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
from dynamic_tinybert.runtime.tasks.sequence_classification.competition import needed_margin
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import (
    DOCUMENT_DROPPING,
    EarlyHead,
    EarlyHeads,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import Ranking, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker

from .bound import CONFIDENCE, fewest_queries, margin_of
from .head_fitting import choose_head, fit_head, kept, macs_share
from .observed import Observed, Observer

PLACES = (1, 3, 5, 10, 20, 50)
"""Numbers of first places that get a margin; fewer places than one of these use its margin."""

FEWEST_TO_FIT = 20
"""Queries that a head is fitted on at least, a third of which choose its layer."""

_FITTING, _MOST_TO_FIT = 0.35, 300  # a share of a single file, and as many queries whose states fit into memory
_FITTING_OF_FITTING = 2 / 3  # the rest chooses the layer
_ROUNDING = 1e-4  # logits of a document differ by less when it runs in stages, or beside other documents


def calibrate_documents(
    bundle: str | Path,
    data: str | Path,
    *,
    validation: str | Path | None = None,
    risk: float = 0.01,
    seed: int = 0,
    num_threads: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> EarlyHeads:
    """Let a reranker's documents compete: fit early heads, choose margins for a risk, and store both in the bundle.

    The target is the model's own final logit, so judgements of relevance are not used. For each named length
    configuration a head is fitted on some queries, and its margins are chosen on others. The bundle is replaced at the
    very end; its length configurations stay. A later calibration of length configurations removes the heads.

    Args:
        bundle: Folder of a bundle with one output.
        data: Rankings in a form that `read_rankings` reads, with lists as long as those to rank later.
        validation: Rankings to choose margins on; by default some groups of `data`. Queries should be independent
            of each other and of those in `data`.
        risk: Largest probability that the first places of a query differ from those without dropping. It holds, with a
            probability of `CONFIDENCE` over the draw of the queries that margins are chosen on, for further queries
            drawn like these.
        seed: Decides which groups are set aside.
        num_threads: CPU threads; by default what the process's CPU affinity and its cgroup's quota allow.
        say: Called with a line of text for each step.

    Raises:
        BundleError: The bundle is missing, damaged or of a newer format.
        DataError: A file cannot be used, or has too few queries; the message says how many are needed.
        InvalidInputError: `risk` is out of range, or the model has several outputs or only one layer.
        StorageError: The bundle could not be written.
    """
    if not 0 < risk < 1:
        raise InvalidInputError(f"risk is {risk}; give a probability between 0 and 1, such as 0.01")
    source = open_bundle(bundle)
    if source.shape.num_layers < 2:
        raise InvalidInputError("documents are dropped between two layers, and this model has one")
    properties = {} if num_threads is None else {"INFERENCE_NUM_THREADS": num_threads}
    model = LengthAdaptiveModel(source, ov_config=properties)
    Reranker(model)  # refuses models of another task or with several outputs
    fitting, bounding = _split(data, validation, risk, seed)
    say(f"Fitting on {len(fitting)} queries, bounding the risk on {len(bounding)} others")
    heads = {name: _head(model, name, fitting, bounding, risk, seed, say) for name in source.length_configs}
    found = EarlyHeads(heads, risk, CONFIDENCE, len(bounding), Path(validation or data).name)
    _write(source, found)
    return found


def _split(
    data: str | Path, validation: str | Path | None, risk: float, seed: int
) -> tuple[list[Ranking], list[Ranking]]:
    """Queries to fit on, and queries to bound the risk on, of which no two share a group.

    Raises:
        DataError: There are too few of either.
    """
    rankings = read_rankings(data, judged=False)
    if validation is None:
        share = min(_FITTING, _MOST_TO_FIT / len(rankings))
        fitting, bounding = split_by_group(rankings, _group_of, (share,), seed)
    else:
        fitting, bounding = rankings, read_rankings(validation, judged=False)
    fitting = shuffled(fitting, seed)[:_MOST_TO_FIT]
    needed = fewest_queries(risk)
    if len(fitting) < FEWEST_TO_FIT or len(bounding) < needed:
        raise DataError(
            f"too few queries: {len(fitting)} to fit on and {len(bounding)} to bound the risk on, but {FEWEST_TO_FIT} "
            f"and, for a risk of {risk:g} with {CONFIDENCE:.0%} confidence, {needed} are needed; groups stay whole; "
            "give more of them, or allow a larger risk"
        )
    return fitting, bounding


def _group_of(ranking: Ranking) -> str:
    return ranking.group or ranking.query


def _head(
    model: LengthAdaptiveModel,
    name: str,
    fitting: Sequence[Ranking],
    bounding: Sequence[Ranking],
    risk: float,
    seed: int,
    say: Callable[[str], None],
) -> EarlyHead:
    """The head of a length configuration with its margins."""
    observer = Observer(model, name)
    seen = _observed(observer, fitting)
    places = max((n for n in PLACES if n <= TOP and _longer(seen, n)), default=0)
    if not places:
        raise DataError("every query has a single document; documents compete only where a query has several")
    first, second = _halves(fitting, seen, seed)
    choice = choose_head(first, _longer(second, places) or second, places, risk)
    head = fit_head(seen, choice, places)
    del seen, first, second
    held_out = _observed(observer, bounding, head.layers)
    margins: dict[int, float] = {}
    dropped: dict[str, float] = {}
    fewer: dict[str, float] = {}
    for count in PLACES:
        own = _longer(held_out, count)
        if len(own) < fewest_queries(risk):
            continue
        margins[count] = margin_of([needed_margin(one.early(head), one.final, count) for one in own], risk) + _ROUNDING
        dropped[str(count)] = fmean(1 - float(kept(one, head, count, margins[count]).mean()) for one in own)
        fewer[str(count)] = 1 / fmean(macs_share(one, head, count, margins[count]) for one in own)
    if not margins:
        raise DataError(f"fewer than {fewest_queries(risk)} queries have more than one document; give longer lists")
    shares = ", ".join(f"{share:.0%} for {count}" for count, share in dropped.items())
    say(f"{name}: the head is after {head.layers} layers; documents that leave, by places: {shares}")
    return replace(head, margins=margins, measured={"dropped": dropped, "macs_fewer": fewer})


def _halves(rankings: Sequence[Ranking], seen: Sequence[Observed], seed: int) -> tuple[list[Observed], list[Observed]]:
    """Queries to fit candidates on, and queries to compare them on; of other groups, if there are several."""
    several = len({_group_of(ranking) for ranking in rankings}) > 1
    names = [_group_of(ranking) if several else str(i) for i, ranking in enumerate(rankings)]
    first, second = split_by_group(range(len(seen)), names.__getitem__, (_FITTING_OF_FITTING,), seed)
    return [seen[i] for i in first], [seen[i] for i in second]


def _longer(observed: Sequence[Observed], places: int) -> list[Observed]:
    """The queries with more different documents than places; in the others nothing can be dropped."""
    return [own for own in observed if len(own.final) > places]


def _observed(observer: Observer, rankings: Sequence[Ranking], layers: int | None = None) -> list[Observed]:
    """What the model computes for all queries; with `layers`, only the states after so many layers are kept."""
    found = []
    for ranking in tqdm(rankings, unit="query", disable=None):
        try:
            own = observer(ranking, batch_size=BATCH_SIZE)
        except InvalidInputError as error:
            raise DataError(f"ranking {ranking.id}: {error}") from error
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
