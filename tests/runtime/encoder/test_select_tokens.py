import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15
from openvino.utils.node_factory import NodeFactory

from dynamic_tinybert.runtime.encoder import extension_library, ops

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
NO_THRESHOLD = -math.inf
PADDING = -10000.0


@cache
def core() -> ov.Core:
    core = extension_library.core()
    return core


def parameters(widths: Sequence[int]) -> list[ov.Node]:
    shapes: list[tuple[list[int], npt.DTypeLike]] = [
        ([-1, -1], np.float32),
        ([-1, -1], np.float32),
        ([-1], np.int32),
    ]
    shapes += [([], np.float32), ([], np.float32), *(([-1, -1, width], np.float32) for width in widths)]
    return [opset15.parameter(shape, kind) for shape, kind in shapes]


def select_op(inputs: Sequence[ov.Output], multiple: int = 1, static: bool = False, window: int = 0) -> list[ov.Output]:
    """Kept rows, their positions and mask: the op, and the Gather that follows it in a graph."""
    significance, mask, length, ratio, threshold, *rows = inputs
    positions, mask, _ = ops.select_tokens(significance, mask, length, ratio, threshold, multiple, static, window)
    return [*(opset15.gather(row, positions, 1, batch_dims=1).output(0) for row in rows), positions, mask]


@cache
def compiled(
    multiple: int = 1, static_ratio: float | None = None, widths: tuple[int, ...] = (2,), threads: int = 1
) -> ov.CompiledModel:
    """One SelectTokens; with `static_ratio` a static one, its keep ratio and threshold constant."""
    inputs = parameters(widths)
    ports = [node.output(0) for node in inputs]
    if static_ratio is not None:
        ports[3:5] = constants(static_ratio, NO_THRESHOLD)
        del inputs[3:5]
    outputs = select_op(ports, multiple, static=static_ratio is not None)
    return core().compile_model(ov.Model(outputs, inputs), "CPU", {"INFERENCE_NUM_THREADS": threads})


def run(model: ov.CompiledModel, *inputs: Array) -> list[Array]:
    request = model.create_infer_request()
    # Not infer(): with one thread, OpenVINO 2026.4.1's synchronous call loses the error.
    request.start_async(list(inputs))
    request.wait()
    return [request.get_output_tensor(i).data.copy() for i in range(len(model.outputs))]


def floats(values: npt.ArrayLike) -> Floats:
    return np.array(values, np.float32)


def ints(values: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def trailing_padding(lengths: Sequence[int], longest: int) -> Floats:
    return floats([[0] * n + [PADDING] * (longest - n) for n in lengths])


def constants(*values: float) -> list[ov.Output]:
    return [opset15.constant(np.float32(value)).output(0) for value in values]


def select(
    significance: Floats,
    mask: Floats | None = None,
    length: Sequence[int] | None = None,
    ratio: float = 1.0,
    threshold: float = NO_THRESHOLD,
    rows: Floats | None = None,
    multiple: int = 1,
) -> tuple[Floats, Array, Floats]:
    """Kept rows, positions and mask of one dynamic SelectTokens."""
    mask = np.zeros_like(significance) if mask is None else mask
    if length is None:
        length = (mask == 0).sum(1).tolist()
    if rows is None:
        rows = np.random.default_rng(0).standard_normal((*significance.shape, 2), np.float32)
    model = compiled(multiple, widths=(rows.shape[2],))
    kept, positions, kept_mask = run(model, significance, mask, ints(length), floats(ratio), floats(threshold), rows)
    return kept, positions, kept_mask


def naively_kept(significance: Floats, mask: Floats, length: int, ratio: float, threshold: float) -> list[int]:
    """What one sequence keeps, by sorting everything."""
    real = [i for i in range(len(mask)) if mask[i] == 0]
    by_significance = sorted(real, key=lambda i: (-significance[i], i))
    kept = by_significance[: max(1, math.ceil(float(np.float32(ratio)) * length - 1e-4))]
    return sorted([i for i in kept if significance[i] >= np.float32(threshold)] or kept[:1])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Floats, Floats, list[int]]:
    """Significance with many ties, a mask with holes, and lengths of the inputs before earlier layers."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    size = batch * length
    values = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, 3.0, -2.0, 1e-30])
    significance = floats(draw(st.lists(values, min_size=size, max_size=size))).reshape(batch, length)
    real = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(batch, length)
    mask = np.where(real, np.float32(0), np.float32(PADDING))
    return significance, mask, [int(n) + draw(st.integers(0, 30)) for n in real.sum(1)]


@settings(deadline=None)
@given(
    batches(),
    st.floats(2**-10, 1.0, width=32),
    st.sampled_from([NO_THRESHOLD, -1.0, 0.0, 0.5, 0.75, 100.0]),
    st.sampled_from([1, 8, 16]),
)
def test_keeps_what_a_naive_sort_keeps(
    batch: tuple[Floats, Floats, list[int]], ratio: float, threshold: float, multiple: int
) -> None:
    significance, mask, lengths = batch
    length = significance.shape[1]
    rows = np.random.default_rng(1).standard_normal((*significance.shape, 3), np.float32)
    kept_rows, positions, kept_mask = select(significance, mask, lengths, ratio, threshold, rows, multiple)
    expected = [naively_kept(*row, ratio, threshold) for row in zip(significance, mask, lengths, strict=True)]
    slots = max(1, max(map(len, expected)))
    assert positions.shape == kept_mask.shape == (len(lengths), math.ceil(slots / multiple) * multiple)
    for b, kept in enumerate(expected):
        assert positions[b, : len(kept)].tolist() == kept
        assert (positions[b, len(kept) :] == length).all()
        assert (kept_mask[b, : len(kept)] == 0).all()
        assert (kept_mask[b, len(kept) :] == PADDING).all()
        np.testing.assert_array_equal(kept_rows[b, : len(kept)], rows[b, kept])
        assert not kept_rows[b, len(kept) :].any()


@cache
def compiled_by_sequence() -> ov.CompiledModel:
    """One SelectTokens whose keep ratios and thresholds are [B] or [1]."""
    inputs = parameters([])[:3] + [opset15.parameter([-1], np.float32) for _ in range(2)]
    outputs = select_op([node.output(0) for node in inputs])
    return core().compile_model(ov.Model(outputs, inputs), "CPU", {"INFERENCE_NUM_THREADS": 1})


@settings(deadline=None)
@given(batches(), st.data())
def test_each_sequence_has_a_ratio_and_a_threshold_of_its_own(
    batch: tuple[Floats, Floats, list[int]], data: st.DataObject
) -> None:
    significance, mask, lengths = batch
    count = len(lengths)
    sizes = [data.draw(st.sampled_from([1, count])) for _ in range(2)]
    ratios = data.draw(st.lists(st.floats(2**-10, 1.0, width=32), min_size=sizes[0], max_size=sizes[0]))
    bounds = st.sampled_from([NO_THRESHOLD, -1.0, 0.5, 100.0])
    thresholds = data.draw(st.lists(bounds, min_size=sizes[1], max_size=sizes[1]))
    model = compiled_by_sequence()
    positions, kept_mask = run(model, significance, mask, ints(lengths), floats(ratios), floats(thresholds))
    for b, row in enumerate(zip(significance, mask, lengths, strict=True)):
        kept = naively_kept(*row, ratios[b % len(ratios)], thresholds[b % len(thresholds)])
        assert positions[b, : len(kept)].tolist() == kept
        assert (kept_mask[b, len(kept) :] == PADDING).all()


def test_refuses_numbers_that_do_not_fit_the_batch_or_are_none() -> None:
    values = np.ones((3, 4), np.float32)
    given = [values, np.zeros_like(values), ints([4] * 3), floats([1] * 3), floats([0] * 3)]
    for index, numbers, message in (
        (3, [1, 1], r"keep ratio has shape \[2\]"),
        (4, [0] * 4, r"threshold has shape \[4\]"),
        (3, [], r"keep ratio has shape \[0\]"),
        (3, [1, 1, 0], r"keep ratio 0 is outside"),
        (4, [0, math.nan, 0], r"threshold nan is not a significance"),
    ):
        wrong = [*given]
        wrong[index] = floats(numbers)
        with pytest.raises(RuntimeError, match=message):
            run(compiled_by_sequence(), *wrong)


@pytest.mark.parametrize(
    ("significance", "ratio", "threshold", "kept"),
    [
        ([0.1, 1.0, 0.75, 0.5, 0.5], 1.0, NO_THRESHOLD, [0, 1, 2, 3, 4]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 0.2, NO_THRESHOLD, [1]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 0.01, NO_THRESHOLD, [1]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 0.6, NO_THRESHOLD, [1, 2, 3]),  # a tie: the lower position
        ([0.5, 0.5, 0.5, 0.5, 1.0], 0.6, NO_THRESHOLD, [0, 1, 4]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 1.0, 0.1, [0, 1, 2, 3, 4]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 1.0, 0.5, [1, 2, 3, 4]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 1.0, 1.0, [1]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 1.0, 7.0, [1]),  # nothing reaches it: the most significant
        ([0.1, 1.0, 0.75, 0.5, 0.5], 0.4, 0.5, [1, 2]),
        ([0.1, 1.0, 0.75, 0.5, 0.5], 0.4, 0.8, [1]),
    ],
)
def test_ratio_and_threshold_by_hand(
    significance: list[float], ratio: float, threshold: float, kept: list[int]
) -> None:
    _, positions, _ = select(floats([significance]), ratio=ratio, threshold=threshold)
    assert positions.tolist() == [kept]


@pytest.mark.parametrize(("ratio", "length", "kept"), [(0.09, 300, 27), (0.07, 100, 7), (0.7, 10, 7), (0.29, 100, 29)])
def test_counts_in_double(ratio: float, length: int, kept: int) -> None:
    significance = np.random.default_rng(2).random((1, length), np.float32)
    _, positions, _ = select(significance, ratio=ratio)
    assert positions.shape == (1, kept)


def test_ratio_is_of_the_original_length() -> None:
    significance = np.random.default_rng(3).random((1, 30), np.float32)
    assert select(significance, length=[100], ratio=0.2)[1].shape == (1, 20)
    assert select(significance, length=[100], ratio=0.5)[1].tolist() == [list(range(30))]


def test_sequence_without_real_tokens_keeps_none() -> None:
    significance = floats([[1, 2, 3], [3, 2, 1]])
    mask = floats([[PADDING] * 3, [0.0] * 3])
    rows, positions, kept_mask = select(significance, mask, ratio=0.5)
    assert positions.tolist() == [[3, 3], [0, 1]]
    assert kept_mask.tolist() == [[PADDING, PADDING], [0, 0]]
    assert not rows[0].any()


def test_anything_but_zero_is_padding() -> None:
    mask = floats([[0.0, -0.0, -10000.0, -1e-30, 1.0, np.nan, -np.inf]])
    _, positions, _ = select(np.ones_like(mask), mask)
    assert positions.tolist() == [[0, 1]]


def test_two_row_tensors_of_different_width() -> None:
    rng = np.random.default_rng(4)
    significance, wide, narrow = (rng.random((2, 9, *tail), np.float32) for tail in ((), (5,), (1,)))
    model = compiled(widths=(5, 1))
    lengths, numbers = ints([9, 9]), (floats(0.5), floats(NO_THRESHOLD))
    kept_wide, kept_narrow, positions, _ = run(
        model, significance, np.zeros_like(significance), lengths, *numbers, wide, narrow
    )
    for b in range(2):
        np.testing.assert_array_equal(kept_wide[b], wide[b, positions[b]])
        np.testing.assert_array_equal(kept_narrow[b], narrow[b, positions[b]])


def test_each_sequence_as_if_alone_and_unpadded() -> None:
    rng = np.random.default_rng(5)
    lengths, longest = [1, 50, 33, 17], 64
    significance = rng.random((4, longest), np.float32)
    mask = trailing_padding(lengths, longest)
    rows = rng.standard_normal((4, longest, 6), np.float32)
    together = select(significance, mask, lengths, 0.4, 0.3, rows, multiple=8)
    for b, n in enumerate(lengths):
        alone = select(significance[b : b + 1, :n], ratio=0.4, threshold=0.3, rows=rows[b : b + 1, :n])
        kept = alone[1].shape[1]
        assert together[1][b, :kept].tolist() == alone[1][0].tolist()
        assert (together[2][b, kept:] == PADDING).all()
        np.testing.assert_array_equal(together[0][b, :kept], alone[0][0])


@pytest.mark.parametrize(
    ("length", "ratio", "multiple", "slots"),
    [(20, 0.5, 1, 10), (20, 0.51, 8, 16), (5, 1, 8, 8), (9, 0.01, 1, 1)],
)
def test_static_slots_come_from_the_shape(length: int, ratio: float, multiple: int, slots: int) -> None:
    rng = np.random.default_rng(6)
    significance, rows = rng.random((2, length), np.float32), rng.random((2, length, 2), np.float32)
    lengths = [length, length // 2]
    mask = trailing_padding(lengths, length)
    kept_rows, positions, kept_mask = run(compiled(multiple, ratio), significance, mask, ints(lengths), rows)
    dynamic = select(significance, mask, lengths, ratio, rows=rows)
    assert positions.shape == (2, slots)
    for b in range(2):
        kept = int((dynamic[2][b] == 0).sum())
        assert int((kept_mask[b] == 0).sum()) == kept
        assert positions[b, :kept].tolist() == dynamic[1][b, :kept].tolist()
        np.testing.assert_array_equal(kept_rows[b, :kept], dynamic[0][b, :kept])


def static_node(length: int, ratio: float, multiple: int = 1, window: int = 0) -> list[ov.Output]:
    kinds = [([1, length], np.float32), ([1, length], np.float32), ([1], np.int32)]
    inputs = [opset15.parameter(shape, kind).output(0) for shape, kind in kinds]
    numbers = constants(ratio, NO_THRESHOLD)
    rows = opset15.parameter([1, length, 4], np.float32).output(0)
    return select_op([*inputs, *numbers, rows], multiple, static=True, window=window)


def test_static_shapes_are_known_when_the_graph_is_built() -> None:
    rows, positions, mask = static_node(384, 0.82, multiple=8)
    assert rows.get_shape() == [1, 320, 4]
    assert positions.get_shape() == mask.get_shape() == [1, 320]
    later = static_node(320, 0.65, window=384)
    assert later[1].get_shape() == [1, 250]  # of 384, not of 320


def test_static_layers_in_a_row_keep_what_dynamic_ones_keep() -> None:
    window, ratios = 48, (0.8, 0.6, 0.3)

    def chain(static: bool) -> ov.CompiledModel:
        inputs = [
            opset15.parameter(shape, kind)
            for shape, kind in (([2, window], np.float32), ([2, window], np.float32), ([2], np.int32))
        ]
        significance, mask, length = (node.output(0) for node in inputs)
        rows = opset15.unsqueeze(significance, np.int64(2)).output(0)
        for ratio in ratios:
            numbers = constants(ratio, NO_THRESHOLD)
            ports = [significance, mask, length, *numbers, rows]
            rows, _, mask = select_op(ports, 8, static, window if static else 0)
            significance = opset15.squeeze(rows, np.array([2])).output(0)
        return core().compile_model(ov.Model([rows, mask], inputs), "CPU", {"INFERENCE_NUM_THREADS": 1})

    rng = np.random.default_rng(7)
    significance = rng.random((2, window), np.float32) + 1
    lengths = [window, 31]
    mask = trailing_padding(lengths, window)
    static, dynamic = (run(chain(kind), significance, mask, ints(lengths)) for kind in (True, False))
    for b in range(2):
        kept = [out[0][b, out[1][b] == 0, 0].tolist() for out in (static, dynamic)]
        assert kept[0] == kept[1]
        most = math.ceil(0.3 * lengths[b] - 1e-4)
        assert sorted(kept[0], reverse=True) == sorted(significance[b, : lengths[b]], reverse=True)[:most]


def test_static_refuses_a_length_beyond_its_slots() -> None:
    mask = np.zeros((1, 10), np.float32)
    with pytest.raises(RuntimeError, match=r"length 30 of sequence 0 exceeds 10.*set window"):
        run(compiled(1, 0.5), mask, mask, ints([30]), np.zeros((1, 10, 2), np.float32))


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.0001, math.nan, math.inf])
def test_refuses_ratios_outside_0_1(ratio: float) -> None:
    with pytest.raises(RuntimeError, match=r"SelectTokens: keep ratio .* is outside \(0, 1\]"):
        select(np.ones((1, 4), np.float32), ratio=ratio)
    with pytest.raises(RuntimeError, match=r"SelectTokens: keep ratio .* is outside \(0, 1\]"):
        static_node(8, ratio)


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_refuses_thresholds_that_are_none(threshold: float) -> None:
    with pytest.raises(RuntimeError, match=r"SelectTokens: threshold .* is not a significance"):
        select(np.ones((1, 4), np.float32), threshold=threshold)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_significance_that_is_not_finite_unless_of_padding(value: float) -> None:
    significance = floats([[1, 2, 3, value]])
    with pytest.raises(RuntimeError, match="of token 3 in sequence 0 is not finite"):
        select(significance, ratio=0.5)
    _, positions, _ = select(significance, floats([[0, 0, 0, PADDING]]), ratio=0.5)
    assert positions.tolist() == [[1, 2]]


def test_refuses_a_length_below_the_real_tokens() -> None:
    with pytest.raises(RuntimeError, match="length 3 of sequence 0 is below its 4 real tokens"):
        select(np.ones((1, 4), np.float32), length=[3])


@pytest.mark.parametrize(
    ("index", "shape", "kind", "message"),
    [
        (0, [1, 4], np.float64, "significance is of type f64; convert it to f32"),
        (1, [1, 5], np.float32, r"mask has shape \[1,5\]"),
        (1, [1, 4, 1], np.float32, r"mask has shape \[1,4,1\]"),
        (2, [1], np.int64, "length is of type i64; convert it to i32"),
        (2, [2], np.int32, r"length has shape \[2\]"),
        (3, [2], np.float32, r"keep ratio has shape \[2\]"),
        (3, [1, 1], np.float32, r"keep ratio has shape \[1,1\]"),
        (3, [], np.float64, "keep ratio is of type f64; convert it to f32"),
        (4, [6], np.float32, r"threshold has shape \[6\]"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(
    index: int, shape: list[int], kind: npt.DTypeLike, message: str
) -> None:
    kinds: list[tuple[list[int], npt.DTypeLike]] = [
        ([1, 4], np.float32),
        ([1, 4], np.float32),
        ([1], np.int32),
    ]
    kinds += [([], np.float32), ([], np.float32)]
    kinds[index] = (shape, kind)
    inputs = [opset15.parameter(s, k).output(0) for s, k in kinds]
    with pytest.raises(RuntimeError, match=message):
        select_op(inputs)


def test_refuses_wrong_attributes_when_the_graph_is_built() -> None:
    inputs = [node.output(0) for node in parameters([])]
    with pytest.raises(RuntimeError, match="multiple 0 must be at least 1"):
        select_op(inputs, multiple=0)
    with pytest.raises(RuntimeError, match="multiple is 9223372036854775807; at most 65536 is allowed"):
        select_op(inputs, multiple=2**63 - 1)
    with pytest.raises(RuntimeError, match="window is 9223372036854775807; at most"):
        select_op(inputs, window=2**63 - 1)
    with pytest.raises(RuntimeError, match="window -1 must be"):
        select_op(inputs, window=-1)
    with pytest.raises(RuntimeError, match="static needs a keep ratio that is a Constant"):
        select_op(inputs, static=True)
    ratio = constants(0.5)[0]
    for threshold in (inputs[4], constants(0.5)[0]):
        with pytest.raises(RuntimeError, match="static needs a threshold that is the Constant -inf"):
            select_op([*inputs[:3], ratio, threshold], static=True)
    several = [opset15.constant(floats([value] * 2)).output(0) for value in (0.5, NO_THRESHOLD)]
    with pytest.raises(RuntimeError, match="static needs a keep ratio that is a Constant, one for all"):
        select_op([*inputs[:3], several[0], several[1]], static=True)
    with pytest.raises(RuntimeError, match="static needs a threshold that is the Constant -inf"):
        select_op([*inputs[:3], ratio, several[1]], static=True)
    with pytest.raises(RuntimeError, match=r"keep ratio 2 is outside \(0, 1\]"):
        select_op([*inputs[:3], opset15.constant(floats([0.5, 2])).output(0), several[1]])
    factory = NodeFactory()
    factory.add_extension(extension_library.extension_path())
    for number in (4, 7):
        with pytest.raises(RuntimeError, match=f"{number} inputs; give"):
            factory.create("SelectTokens", [*inputs, *inputs][:number], {"multiple": 1, "static": False, "window": 0})


def test_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(8)
    significance = rng.integers(0, 50, (260, 300)).astype(np.float32)  # large enough for threads, with ties
    rows = rng.standard_normal((260, 300, 16), np.float32)
    lengths = np.full(260, 300, np.int32)
    inputs = (significance, np.zeros_like(significance), lengths, floats(0.3), floats(5), rows)
    one, two, four = (run(compiled(widths=(16,), threads=n), *inputs) for n in (1, 2, 4))
    for a, b, c in zip(one, two, four, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("static", [False, True])
def test_survives_saving_and_loading(tmp_path: Path, static: bool) -> None:
    inputs = parameters([3])
    ports = [node.output(0) for node in inputs]
    ports[3:5] = constants(0.5, NO_THRESHOLD)
    del inputs[3:5]
    model = ov.Model(select_op(ports, 8, static, 16 if static else 0), inputs)
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    loaded = core().read_model(tmp_path / "model.xml")
    values = np.random.default_rng(9).random((1, 13), np.float32)
    given = (values, np.zeros_like(values), ints([13]), np.repeat(values[..., None], 3, 2))
    before, after = (run(core().compile_model(m, "CPU"), *given) for m in (model, loaded))
    assert before[0].shape == (1, 8, 3)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_origins_lead_back_to_the_first_input() -> None:
    inputs = parameters([])
    significance, mask, length, ratio, threshold = (node.output(0) for node in inputs)
    first, kept_mask, origins = ops.select_tokens(significance, mask, length, ratio, threshold, multiple=4)
    again = opset15.gather(significance, first, 1, batch_dims=1).output(0)
    second, _, of_second = ops.select_tokens(
        again, kept_mask, length, opset15.multiply(ratio, np.float32(0.5)).output(0), threshold, 4, origins=origins
    )
    model = core().compile_model(ov.Model([first, origins, second, of_second], inputs), "CPU")
    lengths = [40, 13]
    values = np.random.default_rng(0).random((2, 40), np.float32)
    positions, origins_then, positions_again, origins_at_last = run(
        model, values, trailing_padding(lengths, 40), ints(lengths), floats(0.5), floats(NO_THRESHOLD)
    )
    np.testing.assert_array_equal(origins_then, np.where(positions < 40, positions + 1, 0))
    for b, length_of in enumerate(lengths):
        kept = [p for p in positions_again[b] if p < positions.shape[1]]
        expected = np.sort(np.argsort(-values[b, :length_of])[: math.ceil(0.25 * length_of)])
        np.testing.assert_array_equal(positions[b, kept], expected)
        np.testing.assert_array_equal(origins_at_last[b, : len(kept)], expected + 1)
        assert not origins_at_last[b, len(kept) :].any()
