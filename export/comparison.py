"""What INT8 changes on held-out questions, run as the runtime will run them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import openvino as ov

from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.modeling.checkpoint import Checkpoint
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_windows
from dynamic_tinybert.runtime.tasks.question_answering.spans import squad_answer
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1

from .bundling import write_bundle
from .samples import Questions

Outputs = Sequence[Sequence[WindowOutput]]
"""For each question the output of each of its windows."""

_BATCH_SIZE = 8


def outputs_of(
    graph: ov.Model,
    checkpoint: Checkpoint,
    questions: Questions,
    *,
    weight_bits: int | None,
    scratch: Path,
) -> Outputs:
    """Run a graph at full length, from a bundle that exists only meanwhile.

    Args:
        graph: FP32 or INT8.
        checkpoint: What it was made from.
        questions: What to ask.
        weight_bits: Of an INT8 graph; None for FP32.
        scratch: An existing folder for the bundle.

    Raises:
        StorageError: The bundle could not be written.

    """
    with TemporaryDirectory(dir=scratch) as place:
        checkpoint.copy_files(Path(place))
        bundle = write_bundle(
            Path(place),
            checkpoint,
            graph,
            {"full": LengthConfig.full(checkpoint.model.config.num_hidden_layers)},
            {"precision": "int8" if weight_bits else "fp32", "weight_bits": weight_bits},
        )
        return run_windows(LengthAdaptiveModel(bundle), questions.windows, length_config="full", batch_size=_BATCH_SIZE)


def compare(questions: Questions, fp32: Outputs, int8: Outputs) -> Int8Change:
    """Compare the outputs of two graphs for the same questions."""
    moved: list[float] = []
    errors: list[npt.NDArray[np.float32]] = []
    windows = chain.from_iterable(questions.windows)
    for window, before, after in zip(windows, chain(*fp32), chain(*int8), strict=True):
        for name in ("start_logits", "end_logits"):
            a, b = (getattr(output, name)[window.context] for output in (before, after))
            moved.append(50 * np.abs(_softmax(a) - _softmax(b)).sum())
            errors.append(np.abs(a - b))
    expected, found = _answers(questions, fp32), _answers(questions, int8)
    change = None
    if questions.scored:
        right = [example.answers for example in questions.examples]
        change = paired_bootstrap(list(map(f1, found, right)), list(map(f1, expected, right)))
    return Int8Change(
        moved=fmean(moved),
        logit_error=float(np.concatenate(errors).mean()),
        same_answers=100 * fmean(a == b for a, b in zip(expected, found, strict=True)),
        f1=change,
        questions=len(questions.examples),
    )


def _answers(questions: Questions, outputs: Outputs) -> list[str]:
    contexts = (example.context for example in questions.examples)
    return list(map(squad_answer, contexts, questions.windows, outputs))


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    return probabilities
