"""What each part of the speedup contributes on this machine: no padding, INT8, and dropping tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.calibration.search.latency import Request, interleaved_ms, requests_of
from dynamic_tinybert.calibration.search.latency_model import padded_lengths
from dynamic_tinybert.runtime.batches import TokenSequence, stack
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InferenceError, InvalidInputError
from dynamic_tinybert.runtime.cpu_quota import thread_properties
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.plain_graph import computed_in_floats
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size

from .fp32_graph import fp32_graph


@dataclass(frozen=True)
class Decomposition:
    """Mean times of a window, in milliseconds, from a padded FP32 model to a dropping one.

    Attributes:
        window: Length of the padded inputs in tokens.
        padded_ms: FP32, each input padded to `window`.
        unpadded_ms: FP32, each input at its own length.
        int8_ms: The bundle at `full`; None for a bundle that is computed in floats, which has no such step.
        dropping_ms: The bundle at each named configuration.
    """

    window: int
    padded_ms: float
    unpadded_ms: float
    int8_ms: float | None
    dropping_ms: Mapping[str, float]

    @property
    def unpadding(self) -> float:
        """Speedup by not padding."""
        return self.padded_ms / self.unpadded_ms

    @property
    def int8(self) -> float | None:
        """Additional speedup by INT8; None for a bundle that is computed in floats."""
        return None if self.int8_ms is None else self.unpadded_ms / self.int8_ms

    @property
    def dropping(self) -> dict[str, float]:
        """Additional speedup of each named configuration by dropping tokens."""
        full = self.unpadded_ms if self.int8_ms is None else self.int8_ms
        return {name: full / ms for name, ms in self.dropping_ms.items()}

    @property
    def total(self) -> dict[str, float]:
        """Speedup of each named configuration over the padded FP32 model: the product of its steps."""
        return {name: self.padded_ms / ms for name, ms in self.dropping_ms.items()}

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, the speedups among them."""
        return asdict(self) | {
            "unpadding": self.unpadding,
            "int8": self.int8,
            "dropping": self.dropping,
            "total": self.total,
        }


def decompose(
    model: LengthAdaptiveModel,
    configs: Mapping[str, LengthConfig],
    windows: Sequence[TokenSequence],
    *,
    num_threads: int | None = None,
    max_seq_len: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> Decomposition:
    """Time each step on one window after another; the steps take turns.

    Args:
        model: A bundle.
        configs: Length configurations by name; with `full`, no more than the model keeps compiled.
        windows: A random sample of the data, about 64, so that each length has its natural weight.
        num_threads: CPU threads of the FP32 graph; give the number that the model was loaded with.
        max_seq_len: Length of a padded input in tokens; no window may be longer. Default: see `window_size`.
        repeats: How often each window is timed in each step; the median counts.
        seed: Seed for the order.

    Raises:
        InvalidInputError: There are no windows, `repeats` is less than 1, or `max_seq_len` is outside its range.
        InferenceError: OpenVINO failed.
        LengthConfigError: A configuration does not fit the model.
    """
    require_int("repeats", repeats, 1)
    if not windows:
        raise InvalidInputError("there are no windows to measure the speedup on")
    full = model.resolve("full")
    is_int8 = model.bundle.quantization["precision"] == "int8" and not computed_in_floats(model.bundle)
    fp32 = _fp32(model, num_threads) if is_int8 else lambda inputs: model(**inputs, length_config=full)
    longest, _ = window_size(model.max_length, max_seq_len)
    padded = [_padded(window, longest) for window in windows]
    unpadded = [_padded(window, min(int(padded_lengths(len(window))), longest)) for window in windows]
    of_model = requests_of(model, windows)
    requests: list[Request] = [lambda i: fp32(padded[i]), lambda i: fp32(unpadded[i])]
    requests += [of_model(config) for config in (*([full] if is_int8 else []), *configs.values())]
    for request, i in product(requests, range(len(windows))):
        request(i)  # compiles, and prepares the kernels of each length
    times = interleaved_ms(requests, len(windows), repeats=repeats, seed=seed).mean(1).tolist()
    padded_ms, unpadded_ms, *rest = times
    int8_ms = rest.pop(0) if is_int8 else None
    return Decomposition(longest, padded_ms, unpadded_ms, int8_ms, dict(zip(configs, rest, strict=True)))


def _fp32(model: LengthAdaptiveModel, num_threads: int | None) -> Callable[[Arrays], object]:
    """The model's graph at full length in FP32, as a function of its inputs."""
    properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = num_threads
    properties |= thread_properties(properties)
    try:
        graph = fp32_graph(extension_library.core().read_model(model.bundle.model_xml))
        return CompiledGraph(partial(extension_library.core().compile_model, graph, "CPU", properties)).infer
    except RuntimeError as error:
        raise InferenceError(f"OpenVINO could not compile the FP32 graph with {properties}: {error}") from error


def _padded(window: TokenSequence, length: int) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of one window with padding up to `length` tokens, int64 [1, length] by name."""
    return {name: np.pad(array, ((0, 0), (0, length - len(window)))) for name, array in stack([window]).items()}
