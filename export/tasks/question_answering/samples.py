"""Read questions with their contexts: windows to calibrate INT8 on, and questions to compare it with FP32 on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from dynamic_tinybert.calibration.data import shuffled, split_by_group
from dynamic_tinybert.export.parity import TokenBatch
from dynamic_tinybert.export.tasks.samples import Samples
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.findings import summary
from dynamic_tinybert.runtime.tasks.question_answering.example import Example, article_of
from dynamic_tinybert.runtime.tasks.question_answering.findings import EXAMPLES, Kind
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import Window

from .questions import Questions

_SEED = 0
_HELD_OUT_SHARE = 0.2
_HELD_OUT_MOST = 500  # questions; enough for a comparison without F1

TREATMENT = {Kind.UNREADABLE: "skipped"}
"""What an export does with faulty questions, by kind of fault."""


def read_samples(
    tokenizer_file: Path, data: Path, validation: Path | None, count: int, max_length: int
) -> Samples[Questions]:
    """Draw windows to calibrate on and questions to compare on; the same arguments always give the same ones.

    The held-out questions are those of `validation` or, without it, up to 500 questions of articles of `data` that the
    calibration windows do not come from. The latter are not scored by F1, because checkpoints are often trained on the
    data that they are calibrated on. Questions that are too long for the model or have no token are skipped.

    Args:
        tokenizer_file: The checkpoint's tokenizer.json.
        data: Questions in a form that `read_squad` reads; answers are not needed.
        validation: Questions to compare on; they are scored by F1 if all have answers.
        count: Largest number of calibration windows.
        max_length: Longest input of the model, in tokens.

    Raises:
        DataError: A file cannot be read or holds no usable question; without `validation`, `data` has one
            article only.
    """
    windows_of = Windowing(tokenizer_file, max_length)
    examples = read_squad(data)
    if validation is not None:
        others = shuffled(read_squad(validation), _SEED)
        held_out = list(_readable(windows_of, others, validation))
        name, scored = validation.name, all(example.answers for example, _ in held_out)
    else:
        examples, others = _hold_out(examples, data)
        held_out = list(islice(_readable(windows_of, shuffled(others, _SEED), data), _HELD_OUT_MOST))
        name, scored = f"held-out articles of {data.name}", False
    calibration: list[TokenBatch] = []
    fitted = 0
    for _, windows in _readable(windows_of, shuffled(examples, _SEED), data):
        calibration += (stack([window]) for window in windows)
        fitted += 1
        if len(calibration) >= count:
            break
    looked_at = len(held_out) + fitted + len(windows_of.unreadable)
    names = " and ".join(dict.fromkeys(file.name for file in (data, validation) if file is not None))
    return Samples(
        calibration=calibration[:count],
        lines=summary(windows_of.unreadable, looked_at, TREATMENT, EXAMPLES, names),
        held_out=Questions(name, [example for example, _ in held_out], [windows for _, windows in held_out], scored),
    )


def _hold_out(examples: Sequence[Example], data: Path) -> tuple[list[Example], list[Example]]:
    """Split the examples by article; the second part gets about a fifth of them."""
    fitting, held_out = split_by_group(examples, article_of, (1 - _HELD_OUT_SHARE,), _SEED)
    if not held_out:
        raise DataError(
            f"the questions of {data} are all about one article, so that none can be held out to compare INT8 on; "
            "give more articles, or other questions as validation"
        )
    return fitting, held_out


def _readable(windows_of: Windowing, examples: Iterable[Example], data: Path) -> Iterator[tuple[Example, list[Window]]]:
    """Each question that the model can read, with its windows; an error if it can read none."""
    empty = True
    for readable in windows_of.readable(examples):
        empty = False
        yield readable
    if empty:
        raise windows_of.refuse_all(f"any question of {data}")
