"""What each part of the speedup is worth on this machine: no padding, INT8, and dropping tokens, by length too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13

from dynamic_tinybert.calibration.search.latency import (
    Request,
    interleaved_ms,
    measure_latency,
    padded_lengths,
    requests_of,
)
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InferenceError, InvalidInputError
from dynamic_tinybert.runtime.cpu_quota import thread_properties
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.plain_graph import computed_in_floats, give_float_weights
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.inference import stack_windows
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window

LENGTHS = (100, 200, 384)
"""Lengths, in tokens, at which the gain is shown."""


@dataclass(frozen=True)
class Decomposition:
    """Mean times of a window, in milliseconds, from a padded FP32 model to a dropping one.

    Attributes:
        window: Tokens that the padded inputs have.
        padded_ms: FP32, each input padded to `window`.
        unpadded_ms: FP32, each input at its own length.
        int8_ms: The bundle at `full`; None for one that is computed in floats, which has no such step.
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
        """Speedup by INT8 on top of that; None for a bundle that is computed in floats."""
        return None if self.int8_ms is None else self.unpadded_ms / self.int8_ms

    @property
    def dropping(self) -> dict[str, float]:
        """Speedup of each named configuration on top of these."""
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


@dataclass(frozen=True)
class LengthGain:
    """What dropping gains on inputs of about one length.

    Attributes:
        name: Such as "200 tokens".
        windows: How many were measured.
        mean_length: Their mean real tokens.
        full_ms: Mean time of a window at `full`, in milliseconds.
        speedup: By configuration, time at `full` divided by its time.
        macs_fewer: By configuration, executed multiply-accumulates of `full` divided by its own.
    """

    name: str
    windows: int
    mean_length: float
    full_ms: float
    speedup: Mapping[str, float]
    macs_fewer: Mapping[str, float]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def decompose(
    model: LengthAdaptiveModel,
    configs: Mapping[str, LengthConfig],
    windows: Sequence[Window],
    *,
    num_threads: int | None = None,
    max_seq_len: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> Decomposition:
    """Measure each step, one window at a time, all steps taking turns.

    Args:
        model: A bundle.
        configs: Length configurations by name, with `full` at most as many as the model keeps compiled.
        windows: A random sample of the data, about 64, so that lengths have their weight in it.
        num_threads: Of the FP32 graph; as the model was loaded with.
        max_seq_len: Tokens of a padded input, and at least of each window; by default as `window_size` has it.
        repeats: How often each window is timed in each step; the median counts.
        seed: Of the order.

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


def fp32_graph(model: ov.Model) -> ov.Model:
    """A copy of a bundle's graph that computes in FP32: activations as they are, INT8 weights by their values.

    Args:
        model: A graph as the exporter writes it: a quantised `MatMul` reads `FakeQuantize` of the activation, with
            SmoothQuant's factors multiplied to it before. An FP32 graph stays as it is.
    """
    model = model.clone()
    give_float_weights(model)
    for matmul in model.get_ordered_ops():
        if matmul.get_type_name() != "MatMul" or _producer(matmul, 0).get_type_name() != "FakeQuantize":
            continue
        activation = _producer(matmul, 0).input_value(0)
        if activation.get_node().get_type_name() == "Multiply":  # SmoothQuant's factors go back into the weights
            values = _constant(matmul, 1) * _constant(activation.get_node(), 1)
            matmul.input(1).replace_source_output(opset13.constant(values).output(0))
            activation = activation.get_node().input_value(0)
        matmul.input(0).replace_source_output(activation)
    return model


def gain_by_length(
    model: LengthAdaptiveModel,
    configs: Mapping[str, LengthConfig],
    questions: Sequence[Sequence[Window]],
    *,
    per_length: int = 16,
    repeats: int = 5,
    seed: int = 0,
) -> list[LengthGain]:
    """Measure how the gain grows with length: near each of `LENGTHS`, and for questions with several windows.

    Args:
        model: The model.
        configs: Length configurations by name.
        questions: The windows of each question, as a model would get them.
        per_length: Most windows near a length, and most questions with several.
        repeats: As for `measure_latency`, here and below.
        seed: Of the order.

    Returns:
        The groups that the questions have windows for, maybe none.

    Raises:
        InvalidInputError: A number is out of range.
        InferenceError: OpenVINO failed.
        LengthConfigError: A configuration does not fit the model.
    """
    windows = [window for own in questions for window in own]
    groups = {f"{length} tokens": _near(windows, length)[:per_length] for length in LENGTHS}
    several = [own for own in questions if len(own) > 1][:per_length]
    groups["several windows"] = [window for own in several for window in own]
    measured = [window for group in groups.values() for window in group]
    if not measured:
        return []
    full = model.resolve("full")
    table = measure_latency(model, [full, *configs.values()], measured, repeats=repeats, seed=seed)
    gains, end = [], 0
    for name, group in groups.items():
        part = slice(end, end := end + len(group))
        if not group:
            continue
        ms = table.ms[:, part].sum(1)
        macs = [
            sum(map(partial(model.executed_macs, config), table.lengths[part].tolist(), kept[part].tolist()))
            for config, kept in zip(table.configs, table.kept, strict=True)
        ]
        gains.append(
            LengthGain(
                name=name,
                windows=len(group),
                mean_length=float(table.lengths[part].mean()),
                full_ms=float(ms[0]) / len(group),
                speedup={n: float(ms[0] / own_ms) for n, own_ms in zip(configs, ms[1:], strict=True)},
                macs_fewer={n: macs[0] / own_macs for n, own_macs in zip(configs, macs[1:], strict=True)},
            )
        )
    return gains


def _near(windows: Sequence[Window], length: int) -> list[Window]:
    """Windows within 15 % of a length, the nearest first."""
    near = [window for window in windows if abs(len(window) - length) <= 0.15 * length]
    return sorted(near, key=lambda window: abs(len(window) - length))


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


def _padded(window: Window, length: int) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of one window with padding up to `length` tokens, int64 [1, length] by name."""
    return {name: np.pad(array, ((0, 0), (0, length - len(window)))) for name, array in stack_windows([window]).items()}


def _producer(node: ov.Node, port: int) -> ov.Node:
    return node.input_value(port).get_node()


def _constant(node: ov.Node, port: int) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = _producer(node, port).get_data()
    return values
