"""Answer the batches of a Ray dataset."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dynamic_tinybert.runtime.common.errors import InvalidInputError, MissingExtraError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tables.parquet import arrow_columns, python_values
from dynamic_tinybert.runtime.tables.table import Row
from dynamic_tinybert.runtime.tasks.question_answering.bulk import BulkAnswerer, InputColumns, new_columns
from dynamic_tinybert.runtime.tasks.question_answering.options import AnswerOptions

from .threads import thread_options


class BatchAnswerer:
    """Answers the questions of a batch; `ray.data.Dataset.map_batches` makes actors of it.

    Each actor loads the bundle once. The new columns and their meaning are those of ``dynamic-tinybert answer``:
    answer, score, start, end and error, which says why a row cannot be answered.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        question: str = "question",
        context: str = "context",
        *,
        prefix: str = "",
        length_config: str | None = None,
        num_threads: int | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by AnswerOptions.for_model
    ) -> None:
        """Load a bundle.

        Args:
            bundle: Folder, the same on all nodes, or Hub id; None takes the one embedded in the package.
            question: Column of the questions.
            context: Column of the texts to answer from.
            prefix: Is put before the names of the new columns.
            length_config: Name of a length configuration in the bundle; None for the bundle's default.
            num_threads: CPU threads; None for as many as the actor has CPUs (`num_cpus` of `map_batches`).
            options: Those of `AnswerOptions`: `top_k`, `max_answer_len`, `max_seq_len`, `doc_stride`,
                `handle_impossible_answer`, `align_to_words`, `merge`, `batch_size`, `compete`. With `top_k` above 1
                there is one more column, answers, with all of them as JSON.

        Raises:
            BundleError: The bundle is missing, damaged or of a newer format.
            InvalidInputError: An option is out of range.
            LengthConfigError: The length configuration is unknown.
        """
        model = LengthAdaptiveModel.from_pretrained(bundle, **thread_options(num_threads))
        self._answerer = BulkAnswerer(
            model, InputColumns(question, context), AnswerOptions.for_model(model.max_length, **options), length_config
        )
        kinds = new_columns(self._answerer.options)
        self._new = {f"{prefix}{name}": own for name, own in kinds.items()}

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - pyarrow comes without types
        """Answer a batch.

        Args:
            batch: A pyarrow.Table (``batch_format="pyarrow"``) or, by Ray's default, a dictionary of arrays [B].

        Returns:
            A pyarrow.Table with the columns of the batch and the new ones. Their types do not depend on the values, so
            that a block without errors has the same schema as one with errors.

        Raises:
            InvalidInputError: The batch lacks a column or has one of the new ones already, or is of another type.
        """
        table = _as_table(batch)
        self._check(table)
        names = [name for name in self._answerer.columns.names if name in table.column_names]
        values = zip(*(_values(batch[name]) for name in names), strict=True)
        rows = [Row(number, dict(zip(names, own, strict=True))) for number, own in enumerate(values, 1)]
        found = [row for _, answered in self._answerer.answer_all(self._answerer.blocks(rows)) for row in answered]
        new = arrow_columns(self._new, [row.values(self._answerer.options) for row in found])
        for name, column in new.items():
            table = table.append_column(name, column)
        return table

    def _check(self, table: Any) -> None:  # noqa: ANN401
        for name in self._answerer.columns.names:
            if name not in table.column_names and table.num_rows:
                has = ", ".join(map(repr, table.column_names))
                raise InvalidInputError(f"the dataset has no column {name!r}; its columns are {has}")
        for name in self._new:
            if name in table.column_names:
                raise InvalidInputError(
                    f"the dataset has a column {name!r} already; give prefix, which is put before the names of the new "
                    "columns"
                )


def _as_table(batch: Any) -> Any:  # noqa: ANN401
    """The batch as a pyarrow.Table."""
    arrow = _pyarrow()
    if isinstance(batch, arrow.Table):
        return batch
    if not isinstance(batch, Mapping):
        raise InvalidInputError(
            f"a batch must be a pyarrow.Table or a dictionary of arrays, not {type(batch).__name__}; give map_batches "
            "batch_format='pyarrow'"
        )
    columns = {}
    for name, values in batch.items():
        try:
            columns[name] = arrow.array(values)
        except (arrow.ArrowException, TypeError, ValueError) as error:  # more than one dimension, or mixed types
            raise InvalidInputError(
                f"column {name!r} is no plain column of Arrow ({str(error).splitlines()[0]}); give map_batches "
                "batch_format='pyarrow', which keeps such columns as they are"
            ) from error
    return arrow.table(columns)


def _values(column: Any) -> list[object]:  # noqa: ANN401
    """Python's values of a column of arrays or of a pyarrow.Table."""
    if isinstance(column, _pyarrow().ChunkedArray):
        return python_values(column)
    return list(np.asarray(column, dtype=object))


def _pyarrow() -> Any:  # noqa: ANN401 - a module that may be missing
    try:
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Ray's batches need pyarrow, which is not installed; run: pip install 'dynamic-tinybert[ray]'"
        ) from error
