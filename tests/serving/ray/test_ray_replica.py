"""A replica carries out the jobs of its bundle's task, whichever that is; no cluster is needed for that."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed")

from dynamic_tinybert import QuestionAnswerer, Reranker
from dynamic_tinybert.serving.jobs import AnswerJob, RankJob
from dynamic_tinybert.serving.ray.replica import ModelReplica
from dynamic_tinybert.serving.ray.settings import RaySettings

from support.text_services import DOCUMENTS, QUERY, loaded, reranker_bundle


def test_a_replica_ranks_at_its_length_configuration(tmp_path: Path) -> None:
    bundle = reranker_bundle(tmp_path / "b")
    reranker = Reranker(loaded(bundle))

    async def ask() -> None:
        replica = ModelReplica(
            RaySettings.model_validate({"bundle": str(bundle), "length_config": "half", "num_threads": 1})
        )
        await replica.check_health()
        for options, config in (({}, "half"), ({"length_config": "full"}, "full")):
            ranked = await replica.run(RankJob(QUERY, DOCUMENTS, options=options), timeout_s=60)
            assert ranked.length_config == config
            assert ranked.result == reranker.rank(QUERY, DOCUMENTS, length_config=config)
        assert (await replica.facts()).task == "sequence_classification"
        await replica._service.aclose()

    asyncio.run(ask())


def test_a_replica_answers(served_bundle: Path, served: QuestionAnswerer) -> None:
    async def ask() -> None:
        replica = ModelReplica(RaySettings.model_validate({"bundle": str(served_bundle), "num_threads": 1}))
        await replica.check_health()
        answered = await replica.run(AnswerJob(("who?",), ("the fox was in the box",)))
        assert answered.answers == served.answer_batch("who?", "the fox was in the box")
        await replica._service.aclose()

    asyncio.run(ask())
