"""Run a model in two stages, so that rows can leave between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .common.checks import require_int
from .common.errors import InvalidInputError
from .encoder.compilation import LENGTH_MULTIPLE, compile_graph, kept_multiple
from .encoder.compiled import CompiledGraph
from .encoder.cut_graph import PROTECTED, SIGNIFICANCE, STATE, Carried, cut_graph
from .encoder.gate import gate
from .encoder.graph import kept_positions
from .encoder.inputs import checked_inputs, padded_to
from .encoder.outputs import check_finite
from .encoder.plain_graph import rewriting
from .length_config import LengthConfig
from .model import LengthAdaptiveModel
from .tasks import task_named


@dataclass(frozen=True)
class FirstStage:
    """Rows between the two stages.

    Attributes:
        arrays: The outputs of the first stage by name, with one entry for each row.
        values: What each of them is.
        multiple: Numbers of kept tokens are padded to a multiple of this.
        length: Tokens of the longest input.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    values: tuple[Carried, ...]
    multiple: int
    length: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.arrays[STATE])

    @property
    def first_states(self) -> npt.NDArray[np.float32]:
        """The state of the first token that is left in each row, float32 [B, H]: [CLS], unless it was dropped.

        Inputs must not begin with padding.
        """
        states: npt.NDArray[np.float32] = self.arrays[STATE][:, 0]
        return states

    @property
    def kept_positions(self) -> dict[int, npt.NDArray[np.int32]]:
        """For each layer before the cut that may drop tokens, the input positions of those that it passed on.

        They are int32 [B, n], ascending; rows with fewer than n tokens are filled up with `length`.
        """
        return kept_positions(self.arrays, self.length)

    @property
    def significance(self) -> npt.NDArray[np.float32] | None:
        """What the last scorer before the cut gives to the tokens that it sees, in [0, 1], float32 [B, m].

        It is NaN for protected tokens, and 0 for padding and fillers. None if there is no scorer.
        """
        if SIGNIFICANCE not in self.arrays:
            return None
        return np.where(self.arrays[PROTECTED] > 0, np.float32(np.nan), self.arrays[SIGNIFICANCE])

    def rows(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> FirstStage:
        """Some rows, in the order of their indices, with fillers only as far as these rows need them.

        Raises:
            InvalidInputError: There is no index.
        """
        chosen = np.asarray(indices, np.intp)
        if not chosen.size:
            raise InvalidInputError("a batch of the later stage needs at least one row, and no index was given")
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        longest = {}
        for layer, positions in kept_positions(arrays, self.length).items():
            most = int((positions < self.length).sum(1).max())
            longest[layer] = -(-most // self.multiple) * self.multiple
        for value in self.values:
            if value.of_tokens and value.selection is not None:
                arrays[value.name] = arrays[value.name][:, : longest[value.selection]]
        return FirstStage(arrays, self.values, self.multiple, self.length)

    @staticmethod
    def joined(batches: Sequence[FirstStage]) -> FirstStage:
        """The rows of several batches of one `StagedModel`, in order, as one batch.

        Raises:
            InvalidInputError: There is no batch.
        """
        if not batches:
            raise InvalidInputError("a batch of the later stage needs at least one row, and no batch was given")
        arrays = {}
        for value in batches[0].values:
            own = [batch.arrays[value.name] for batch in batches]
            if value.of_tokens:
                longest = max(array.shape[1] for array in own)
                own = [_filled_up(array, longest, value.filler) for array in own]
            arrays[value.name] = np.concatenate(own)
        return FirstStage(arrays, batches[0].values, batches[0].multiple, max(batch.length for batch in batches))


class StagedModel:
    """A model at one length configuration, cut after a layer. Safe to call from many threads, and to fork.

    If no row leaves, both stages give what the model gives. In a fused INT8 graph they do so to the bit for each row
    that stays, whichever rows leave.
    """

    def __init__(
        self,
        model: LengthAdaptiveModel,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        *,
        after_layer: int,
    ) -> None:
        """Compile both stages.

        Args:
            model: The model.
            length_config: As for `LengthAdaptiveModel.__call__`.
            after_layer: The last layer of the first stage, its selection included; at least one layer must follow.

        Raises:
            LengthConfigError: The length configuration is unknown or does not fit the model.
            InvalidInputError: `after_layer` is out of range.
            InferenceError: OpenVINO cannot compile a stage.
        """
        last = model.bundle.shape.num_layers - 2
        if require_int("after_layer", after_layer, 0) > last:
            raise InvalidInputError(f"after_layer must be at most {last}, so that a layer follows, not {after_layer}")
        self.model = model
        self.length_config = model.resolve(length_config)
        self.after_layer = after_layer
        self._task = task_named(model.bundle.task)
        graph = model.specialised_graph(self.length_config, separate_after=[after_layer])
        with gate, rewriting(model.bundle):
            cut = cut_graph(graph, after_layer)
        self._values, self._inputs = cut.values, [node.get_any_name() for node in cut.later.inputs]
        properties = {name: value for name, value in model.execution.items() if name != "elastic"}
        self._first, self._later = (
            CompiledGraph(partial(compile_graph, stage, properties)) for stage in (cut.first, cut.later)
        )

    def first(
        self,
        input_ids: npt.ArrayLike,
        *,
        attention_mask: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
    ) -> FirstStage:
        """Run the first stage; arguments and errors are those of `LengthAdaptiveModel.__call__`."""
        inputs = checked_inputs(self.model.bundle, input_ids, attention_mask, token_type_ids)
        length = inputs["input_ids"].shape[1]
        padded = min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.model.max_length)
        outputs = self._first.infer({name: padded_to(array, padded) for name, array in inputs.items()})
        check_finite(outputs, [STATE], padded)
        return FirstStage(outputs, self._values, kept_multiple(self.model.bundle), length)

    def later(self, rows: FirstStage) -> Any:  # noqa: ANN401 - the type is the task's
        """Run the later stage; returns the outputs of the model's task for these rows, padded to their `length`.

        Raises:
            InferenceError: OpenVINO failed, or computed logits that are not finite.
        """
        outputs = self._later.infer({name: np.ascontiguousarray(rows.arrays[name]) for name in self._inputs})
        check_finite(outputs, self._task.output_names, rows.length)
        kept = rows.kept_positions | kept_positions(outputs, rows.length)
        return self._task.output(outputs, rows.length, kept)


def _filled_up(array: npt.NDArray[Any], length: int, filler: float) -> npt.NDArray[Any]:
    """`array` [B, n, ...] with fillers up to [B, length, ...]."""
    filled = np.full((len(array), length, *array.shape[2:]), filler, array.dtype)
    filled[:, : array.shape[1]] = array
    return filled
