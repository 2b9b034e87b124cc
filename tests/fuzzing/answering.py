"""What children do: load a bundle, whatever it is, and ask it; without PyTorch, as the runtime is."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput

from . import mutations
from .requests import Request, random_request

CONTEXT = "the a was in 1 2 . the b was in 2 3 . the c was in 3 1 ."


def mutate_and_ask(bundle: str, seed: int) -> str:
    """Damage a bundle and ask it with all its length configurations, by specialised graphs and an elastic one."""
    with TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        mutations.mutate(Path(bundle), place, seed)
        said = []
        for elastic in (False, True):
            model = LengthAdaptiveModel.from_pretrained(place, num_threads=1, elastic=elastic)
            answerer = QuestionAnswerer(model)
            for name in list(model.length_configs)[:3]:
                answer = answerer(question="where was the b ?", context=CONTEXT, top_k=1, length_config=name)
                assert isinstance(answer, dict), answer
                assert math.isfinite(answer["score"]), answer
                assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"], answer
                said.append(answer["answer"])
        return repr(said)


@cache
def _model(bundle: str, elastic: bool) -> LengthAdaptiveModel:
    return LengthAdaptiveModel.from_pretrained(bundle, num_threads=1, elastic=elastic, max_compiled=24)


def request(bundle: str, seed: int, tolerance: float) -> str:
    """Send a random request; if it is answered, each row must be what the row gives alone, up to the tolerance."""
    asked = random_request(bundle, seed)
    model = _model(bundle, asked.elastic)
    output = model(**asked.arguments())
    ids = np.asarray(asked.input_ids)
    assert output.start_logits.shape == output.end_logits.shape == ids.shape
    for row in range(len(ids)):
        alone = _alone(model, asked, row)
        real = asked.real(row)
        for name in ("start_logits", "end_logits"):
            difference = np.abs(getattr(output, name)[row, : len(real)][real] - getattr(alone, name)[0][real])
            assert difference.max() <= tolerance, (
                f"{name} of row {row} differ by {difference.max()} from alone: {asked}"
            )
        for layer, kept in output.kept_positions.items():
            mine, theirs = kept[row], alone.kept_positions[layer][0]
            mine, theirs = mine[mine < ids.shape[1]], theirs[theirs < len(real)]
            assert mine.tolist() == theirs.tolist(), f"layer {layer} of row {row} keeps others than alone: {asked}"
            assert real[mine].all(), f"layer {layer} keeps padding: {asked}"
    return f"{ids.shape}"


def _alone(model: LengthAdaptiveModel, asked: Request, row: int) -> QuestionAnsweringOutput:
    length = len(asked.real(row))
    arrays = {
        name: None if value is None else np.asarray(value)[row : row + 1, :length]
        for name, value in asked.arrays().items()
    }
    output: QuestionAnsweringOutput = model(**arrays, length_config=asked.length_config)
    return output
