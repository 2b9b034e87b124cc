"""Which requests may share a batch. `benchmarks/serving/shared_batches.py` measures what that saves."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.encoder.compilation import kept_multiple
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

Config = str | LengthConfig
"""The name of a length configuration, or one without a name."""

_TOKENS_PER_THREAD = 128
"""Tokens that keep a thread busy: larger batches are no faster than one after the other."""

_LEAST_FILLED = 0.75
"""A shorter window than the others is padded to their length; it must fill at least this share."""

_MOST_ROWS = 8


class SharedBatch:
    """The windows of several requests that are run in one call.

    They are of nearly the same length, few enough not to keep all threads busy, and either of one length configuration
    or all of configurations that drop tokens, which then run in the elastic graph. (A graph in which no layer drops
    tokens computes the logits otherwise, with other last bits.) Only bundles are considered of which a row's results do
    not depend on what else is in the batch, to the bit: INT8 ones on any CPU with AVX2, of which no layer is padded.
    """

    def __init__(self, model: LengthAdaptiveModel, length: int, rows: int, config: Config, *, mixed: bool) -> None:
        """Begin with the windows of one request.

        Args:
            model: What runs them.
            length: Their tokens, as padded.
            rows: Their number.
            config: Their length configuration.
            mixed: Whether other length configurations may be added, which takes the elastic graph.
        """
        self._model = model
        self._length = length
        self._rows = rows
        self._configs = {config}
        self._mixed = mixed and self._drops(config)
        self._tokens = _most_tokens(model)

    def has_room(self, length: int, rows: int) -> bool:
        """Whether so many more windows of such a length may be added."""
        together = self._rows + rows
        fits = together <= _MOST_ROWS and together * self._length <= self._tokens
        return fits and _LEAST_FILLED * self._length <= length <= self._length

    def permits(self, config: Config) -> bool:
        """Whether windows of a length configuration may be added."""
        return config in self._configs or (self._mixed and self._drops(config))

    def add(self, rows: int, config: Config) -> bool:
        """Add windows for which there is room, if their length configuration permits it; returns whether it did."""
        if not self.permits(config):
            return False
        self._configs.add(config)
        self._rows += rows
        return True

    def _drops(self, config: Config) -> bool:
        return bool(self._model.resolve(config).selecting_layers)


_known: WeakKeyDictionary[LengthAdaptiveModel, int] = WeakKeyDictionary()


def _most_tokens(model: LengthAdaptiveModel) -> int:
    """Tokens of a shared batch; 0 if none is shared. To find out takes as long as a batch, as files are read."""
    if model not in _known:
        threads = int(model.execution.get("INFERENCE_NUM_THREADS", default_threads()))
        _known[model] = _TOKENS_PER_THREAD * threads if kept_multiple(model.bundle) == 1 else 0
    return _known[model]
