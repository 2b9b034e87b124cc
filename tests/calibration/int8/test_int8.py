"""INT8 calibration, against torch hooks, the formulas of the papers, and INC's own converted graph."""

import copy
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear, channel_extremes, quantize_linears
from dynamic_tinybert.runtime.common.errors import CheckpointError, InvalidInputError, MissingExtraError

LENGTHS = (20, 7, 33, 1, 48, 12)
ALPHA = 0.6
ENCODER_LINEARS = {
    f"bert.encoder.layer.{layer}.{name}"
    for layer in range(2)
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
}
Quantized = dict[str, QuantizedLinear]


def sequences(lengths: Sequence[int], seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "input_ids": torch.randint(0, 100, (1, length), generator=generator),
            "attention_mask": torch.ones(1, length, dtype=torch.int64),
            "token_type_ids": (torch.arange(length)[None] > length // 3).long(),
        }
        for length in lengths
    ]


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig.from_dict(
        {
            "vocab_size": 100,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,  # wide enough for attention and logits to depend on the tokens
            "attn_implementation": "eager",
        }
    )
    model: nn.Module = BertForQuestionAnswering(config)
    return model.eval()


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Tensor]]:
    return sequences(LENGTHS)


@pytest.fixture(scope="module")
def smoothed(bert: nn.Module, batches: list[dict[str, Tensor]]) -> Quantized:
    return quantize_linears(bert, batches, smooth_alpha=ALPHA, skip=["qa_outputs"])


@pytest.fixture(scope="module")
def unsmoothed(bert: nn.Module, batches: list[dict[str, Tensor]]) -> Quantized:
    return quantize_linears(bert, batches, smooth_alpha=None)


@pytest.fixture(scope="module")
def training_copy(bert: nn.Module) -> nn.Module:
    return copy.deepcopy(bert).train()


@pytest.fixture(scope="module")
def seven_bit(training_copy: nn.Module, batches: list[dict[str, Tensor]]) -> Quantized:
    return quantize_linears(training_copy, batches, smooth_alpha=ALPHA, weight_bits=7, skip=["qa_outputs"])


@pytest.fixture(scope="module")
def inputs(bert: nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    """What each Linear of the FP32 model reads: one [length, in] for each batch."""
    read: dict[str, list[Tensor]] = {}
    model = copy.deepcopy(bert)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            rows = read.setdefault(name, [])
            module.register_forward_pre_hook(lambda _, args, rows=rows: rows.append(args[0][0].detach()))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return read


def moving_average_range(rows: Sequence[Tensor]) -> tuple[float, float]:
    low, high = rows[0].min().item(), rows[0].max().item()
    for row in rows[1:]:
        low += 0.01 * (row.min().item() - low)
        high += 0.01 * (row.max().item() - high)
    return min(low, 0.0), max(high, 0.0)


def test_every_linear_is_quantised_except_the_skipped(smoothed: Quantized, unsmoothed: Quantized) -> None:
    assert smoothed.keys() == ENCODER_LINEARS
    assert unsmoothed.keys() == ENCODER_LINEARS | {"qa_outputs"}
    assert all(layer.smoothing is None for layer in unsmoothed.values())


def test_activation_range_is_the_moving_average_of_the_smoothed_inputs(
    smoothed: Quantized, inputs: dict[str, list[Tensor]]
) -> None:
    for name, layer in smoothed.items():
        assert layer.smoothing is not None
        factor = torch.from_numpy(layer.smoothing)
        low, high = moving_average_range([rows * factor for rows in inputs[name]])
        scale = (high - low) / 255
        assert layer.activation_scale == pytest.approx(scale, rel=1e-5)
        assert layer.activation_zero_point == round(-low / scale)


def test_extremes_clip_nothing_and_waste_nothing(
    bert: nn.Module, batches: list[dict[str, Tensor]], inputs: dict[str, list[Tensor]]
) -> None:
    extremes = channel_extremes(bert, batches, skip=["qa_outputs"])
    for alpha in (ALPHA, None):  # the same pass serves both
        quantized = quantize_linears(bert, batches, smooth_alpha=alpha, ranges="extremes", extremes=extremes)
        assert quantized.keys() == ENCODER_LINEARS
        for name, layer in quantized.items():
            read = torch.cat(inputs[name]) * (1 if layer.smoothing is None else torch.from_numpy(layer.smoothing))
            low, high = min(read.min().item(), 0), max(read.max().item(), 0)
            assert layer.activation_scale == pytest.approx((high - low) / 255, rel=1e-5)
            assert layer.activation_zero_point == round(-low / layer.activation_scale)


def test_smoothing_is_that_of_the_paper_over_all_readers_of_the_input(
    bert: nn.Module, smoothed: Quantized, inputs: dict[str, list[Tensor]]
) -> None:
    for name, layer in smoothed.items():
        parent, _, last = name.rpartition(".")
        readers = [f"{parent}.{n}" for n in ("query", "key", "value")] if parent.endswith("self") else [name]
        assert last in [reader.rpartition(".")[2] for reader in readers]
        activation = torch.cat(inputs[name]).abs().amax(0)
        weight = torch.cat([bert.get_parameter(f"{reader}.weight") for reader in readers]).abs().amax(0)
        expected = weight ** (1 - ALPHA) / activation**ALPHA
        torch.testing.assert_close(torch.from_numpy(layer.smoothing), expected.detach())


def test_query_key_and_value_share_their_quantised_input(smoothed: Quantized) -> None:
    for layer in range(2):
        query, key, value = (
            smoothed[f"bert.encoder.layer.{layer}.attention.self.{n}"] for n in ("query", "key", "value")
        )
        for other in (key, value):
            assert other.activation_scale == query.activation_scale
            assert other.activation_zero_point == query.activation_zero_point
            np.testing.assert_array_equal(other.smoothing, query.smoothing)


@pytest.mark.parametrize(("ranges", "algorithm"), [("moving-average", "minmax"), ("histogram", "kl")])
def test_numbers_are_those_of_the_graph_that_inc_converts(
    bert: nn.Module, batches: list[dict[str, Tensor]], unsmoothed: Quantized, ranges: str, algorithm: str
) -> None:
    if ranges != "moving-average":
        unsmoothed = quantize_linears(bert, batches, smooth_alpha=None, ranges=ranges)
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tuple(batches[0][name] for name in names)
    exported = export(copy.deepcopy(bert), example, dynamic_shapes=({1: torch.export.Dim.AUTO},) * 3)
    prepared = prepare(exported, StaticQuantConfig(act_algo=algorithm))
    with torch.no_grad():
        for batch in batches:
            prepared(*(batch[name] for name in names))
    converted = convert(prepared)
    seen = set()
    for linear in converted.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        activation, weight = (dequantize.args[0] for dequantize in linear.args[:2])  # the quantize nodes
        name = weight.args[0].target.removesuffix(".weight")
        seen.add(name)
        assert activation.args[1] == unsmoothed[name].activation_scale
        assert activation.args[2] == unsmoothed[name].activation_zero_point
        scale, zero_point = (getattr(converted, arg.target) for arg in weight.args[1:3])
        np.testing.assert_array_equal(scale.numpy(), unsmoothed[name].weight_scale)
        steps = weight.target(bert.get_parameter(f"{name}.weight"), scale, zero_point, *weight.args[3:])
        np.testing.assert_array_equal(steps.numpy(), unsmoothed[name].weight)
    assert seen == unsmoothed.keys()


def check_weights(bert: nn.Module, quantized: Quantized) -> None:
    for name, layer in quantized.items():
        assert layer.weight.dtype == np.int8
        assert layer.weight_scale.dtype == np.float32
        scale = layer.weight_scale[:, None]
        expected = bert.get_parameter(f"{name}.weight").detach().numpy() / layer.smoothing
        assert (np.abs(layer.weight * scale - expected) <= 0.5001 * scale).all()


def test_weights_lie_within_half_a_step_of_the_smoothed_ones(bert: nn.Module, smoothed: Quantized) -> None:
    check_weights(bert, smoothed)
    for layer in smoothed.values():
        assert np.abs(layer.weight.astype(int)).max(axis=1).min() >= 127


def test_seven_bit_weights_cannot_saturate_sixteen_bits(bert: nn.Module, seven_bit: Quantized) -> None:
    check_weights(bert, seven_bit)
    for layer in seven_bit.values():
        assert (np.abs(layer.weight).max(axis=1) == 63).all()


def test_weight_bits_leave_the_activations_alone(smoothed: Quantized, seven_bit: Quantized) -> None:
    for name, layer in smoothed.items():
        assert seven_bit[name].activation_scale == layer.activation_scale
        assert seven_bit[name].activation_zero_point == layer.activation_zero_point
        np.testing.assert_array_equal(seven_bit[name].smoothing, layer.smoothing)


def test_the_model_of_the_caller_is_untouched(bert: nn.Module, training_copy: nn.Module, seven_bit: Quantized) -> None:
    assert training_copy.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in training_copy.modules())
    before, after = bert.state_dict(), training_copy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


class FakeQuantizedLinear(nn.Module):
    """What `QuantizedLinear` says that its layer computes."""

    def __init__(self, layer: QuantizedLinear, bias: Tensor) -> None:
        super().__init__()
        self.layer, self.bias = layer, bias

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if layer.smoothing is not None:
            x = x * torch.from_numpy(layer.smoothing)
        q = (torch.round(x / layer.activation_scale) + layer.activation_zero_point).clamp(0, 255)
        weight = torch.from_numpy(layer.weight * layer.weight_scale[:, None])
        return (q - layer.activation_zero_point) * layer.activation_scale @ weight.T + self.bias


def logits(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return torch.cat([torch.stack(model(**batch)[:2])[:, 0] for batch in batches], dim=1)


@pytest.mark.parametrize("alpha", [ALPHA, None])
def test_the_layer_that_the_numbers_describe_approximates_fp32(
    bert: nn.Module, request: pytest.FixtureRequest, alpha: float | None
) -> None:
    quantized: Quantized = request.getfixturevalue("unsmoothed" if alpha is None else "smoothed")
    model = copy.deepcopy(bert)
    for name, layer in quantized.items():
        bias = bert.get_parameter(f"{name}.bias")
        model.set_submodule(name, FakeQuantizedLinear(layer, bias))
    unseen = sequences((30, 41, 5), seed=1)
    expected = logits(bert, unseen)
    error = (logits(model, unseen) - expected).abs().mean()
    assert 0 < error < 0.05 * expected.std()


class Embedded(nn.Module):
    """An embedding and two Linear layers, the first of which runs `runs` times."""

    def __init__(self, runs: int = 1) -> None:
        super().__init__()
        self.embedding, self.first, self.second = nn.Embedding(100, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.runs = runs

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for _ in range(self.runs):
            x = self.first(x)
        y: Tensor = self.second(x)
        return y


IDS = {"input_ids": torch.arange(5)[None]}


def test_the_same_call_gives_the_same_numbers() -> None:
    model = Embedded()
    first, second = (quantize_linears(model, [IDS]) for _ in range(2))
    assert first.keys() == second.keys() == {"first", "second"}
    for name, layer in first.items():
        assert layer.activation_scale == second[name].activation_scale
        assert layer.activation_zero_point == second[name].activation_zero_point
        np.testing.assert_array_equal(layer.weight, second[name].weight)
        np.testing.assert_array_equal(layer.weight_scale, second[name].weight_scale)
        np.testing.assert_array_equal(layer.smoothing, second[name].smoothing)


def test_the_first_sequence_may_have_length_one() -> None:
    one = {"input_ids": torch.tensor([[7]])}
    assert quantize_linears(Embedded(), [one, IDS]).keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        ([], {}, "no calibration batches"),
        ([IDS], {"skip": ["third"]}, r"\['third'\]"),
        ([IDS], {"skip": ["first", "second"]}, "nothing to quantise"),
        ([IDS], {"smooth_alpha": 1.5}, "smooth_alpha is 1.5"),
        ([IDS], {"smooth_alpha": float("nan")}, "smooth_alpha is nan"),
        ([IDS], {"weight_bits": 4}, "weight_bits is 4"),
        ([IDS], {"ranges": "minmax"}, "ranges is 'minmax'"),
        ([IDS, {}], {}, "batch 1 holds"),
        ([{"input_ids": torch.zeros(2, 5, dtype=torch.int64)}], {}, r"shape \[2, 5\]"),
        ([IDS | {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}], {}, "batch 0 is padded"),
    ],
)
def test_unusable_arguments_are_refused(bad: list[dict[str, Tensor]], options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quantize_linears(Embedded(), bad, **options)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nothing to quantise"):
        quantize_linears(nn.Embedding(100, 4), [{"input": torch.arange(5)[None]}])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("parameter", ["embedding.weight", "second.weight"])
@pytest.mark.parametrize("alpha", [0.7, None])
def test_values_that_are_not_finite_are_refused(value: float, parameter: str, alpha: float | None) -> None:
    model = Embedded()
    with torch.no_grad():
        model.get_parameter(parameter)[1, 2] = value
    with pytest.raises(CheckpointError, match="first" if "embedding" in parameter else "second"):
        quantize_linears(model, [IDS], smooth_alpha=alpha)


@pytest.mark.parametrize("runs", [0, 2])
def test_a_layer_that_does_not_run_exactly_once_is_refused(runs: int) -> None:
    with pytest.raises(CheckpointError, match=f"first runs {runs} times"):
        quantize_linears(Embedded(runs), [IDS])


def test_missing_neural_compressor_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dynamic_tinybert.calibration.int8.inc", raising=False)
    monkeypatch.delattr("dynamic_tinybert.calibration.int8.inc", raising=False)
    monkeypatch.setitem(sys.modules, "neural_compressor.torch.export", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynamic-tinybert\[export\]'"):
        quantize_linears(Embedded(), [IDS])


QUIET_RUN = """
import sys, torch
from torch import nn
from dynamic_tinybert.calibration.int8.linears import quantize_linears
model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
assert quantize_linears(model, [{"input": torch.arange(5)[None]}]).keys() == {"1"}
assert "neural_compressor" in sys.modules
assert "intel_extension_for_pytorch" not in sys.modules
"""


@pytest.mark.slow
def test_neither_import_nor_run_prints_anything() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET_RUN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
