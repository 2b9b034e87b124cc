"""Tensors of the Open Inference Protocol are the same after they were on the wire."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.http.protocol_v2.tensors import (
    DataType,
    TensorSpec,
    checked_shape,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

SHAPES = array_shapes(min_dims=1, max_dims=2, max_side=5)
NUMBERS = arrays(np.int64, SHAPES)
TEXTS = arrays(np.object_, SHAPES, elements=st.text(st.characters(codec="utf-8")))
TENSORS = st.one_of(NUMBERS, TEXTS)
NUMPY_TYPES: tuple[tuple[DataType, str], ...] = (("BOOL", "?"), ("INT64", "<i8"), ("FP32", "<f4"), ("FP64", "<f8"))


def spec_of(array: npt.NDArray[Any]) -> TensorSpec:
    return TensorSpec("x", "BYTES" if array.dtype == object else "INT64", (-1,) * array.ndim)


@given(TENSORS)
def test_binary_tensors_come_back(array: npt.NDArray[Any]) -> None:
    spec = spec_of(array)
    # The bytes stand somewhere in a body, so not at a multiple of 8.
    raw = memoryview(b"{" + to_binary(spec.datatype, array))[1:]
    back = from_binary(spec, array.shape, raw)
    np.testing.assert_array_equal(back, array, strict=True)


@given(TENSORS, st.booleans())
def test_json_tensors_come_back_flat_or_nested(array: npt.NDArray[Any], nested: bool) -> None:
    back = from_json(spec_of(array), array.shape, array.tolist() if nested else to_json(array))
    np.testing.assert_array_equal(back, array, strict=True)


@pytest.mark.parametrize(("datatype", "dtype"), NUMPY_TYPES)
@given(data=st.data())
def test_outputs_are_the_same_bits_as_json_and_as_bytes(datatype: DataType, dtype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(dtype, SHAPES))
    expected = array.tobytes()
    assert to_binary(datatype, array) == expected
    finite = np.nan_to_num(array) if array.dtype.kind == "f" else array  # JSON has no others
    assert np.array(to_json(finite), dtype).tobytes() == finite.tobytes()


def test_outputs_in_other_byte_orders_and_strides() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4).T[::2]
    assert np.frombuffer(to_binary("FP32", array), "<f4").tolist() == array.ravel().tolist() == to_json(array)


LENGTHS = st.integers(0, 3).map(lambda length: length.to_bytes(4, "little"))


@given(
    st.lists(LENGTHS | st.binary(max_size=4) | st.sampled_from([b"12345678"]), max_size=6).map(b"".join),
    st.sampled_from(["BYTES", "INT64"]),
    st.integers(1, 3) | st.integers(1, 2**62),
)
def test_any_bytes_are_a_tensor_or_refused(raw: bytes, datatype: DataType, size: int) -> None:
    spec = TensorSpec("x", datatype, (-1,))
    try:
        array = from_binary(spec, (size,), memoryview(raw))
    except InvalidInputError:
        event("refused")
    else:
        event("accepted")
        assert to_binary(datatype, array) == raw


def texts(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (texts(b"a"), "binary data has 1 elements, but its shape has 2"),
        (texts(b"a", b"b", b"c"), "bytes are left over after 2 elements"),
        (texts(b"a") + b"\1\0\0", "element 1 ends after binary_data_size=8"),
        (texts(b"a") + b"\2\0\0\0b", "element 1 ends after binary_data_size=10"),
        (texts(b"a") + b"\xff\xff\xff\xff", "element 1 ends after"),
        (texts(b"a", b"\xff"), "element 1 is not UTF-8"),
        (texts("\ud800".encode("utf-8", "surrogatepass"), b"a"), "element 0 is not UTF-8"),
    ],
)
def test_wrong_texts(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        from_binary(TensorSpec("x", "BYTES", (-1,)), (2,), memoryview(raw))


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("INT64", [1, 2, 3], r"data has 3 elements, but shape \[2, 2\] has 4"),
        ("INT64", [[1, 2], [3]], "nested otherwise"),
        ("INT64", [[1, 2, 3, 4]], "nested otherwise"),
        ("INT64", [[1, 2], 3, 4], "nested otherwise"),
        ("INT64", [[[1], 2], [3, 4]], r"must hold integers, not \[1\]"),
        ("INT64", [1, 2, 3, 4.0], "must hold integers, not 4.0"),
        ("INT64", [1, 2, 3, True], "must hold integers, not True"),
        ("INT64", [1, 2, 3, None], "must hold integers, not None"),
        ("INT64", [1, 2, 3, 2**63], "9223372036854775808 does not fit into 64 bits"),
        ("INT64", [1, 2, 3, -(10**4000)], "does not fit into 64 bits"),
        ("INT64", {"a": 1}, "data must be a list"),
        ("INT64", None, "data must be a list, not None"),
        ("BYTES", ["a", "b", "c", 1], "element 3 must be a text, not 1"),
        ("BYTES", ["a", "b", "c", "\ud800"], "element 3 has half of a surrogate pair"),
    ],
)
def test_wrong_json(datatype: DataType, data: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        from_json(TensorSpec("x", datatype, (-1, -1)), (2, 2), data)


@pytest.mark.parametrize("shape", [None, 2, [], [1], [1, 1, 1], [0, 1], [-1, 1], [1.0, 1], [True, 1], [2**63, 1], "11"])
def test_wrong_shapes(shape: object) -> None:
    with pytest.raises(InvalidInputError, match=r"shape must be a list of 2 integers from 1 to 2\*\*63 - 1, not "):
        checked_shape(TensorSpec("x", "INT64", (-1, -1)), shape)


def test_huge_shapes_allocate_nothing() -> None:
    huge = (2**62, 2**62)
    with pytest.raises(InvalidInputError, match="has 170141183460469231731687303715884105728 bytes"):
        from_binary(TensorSpec("x", "INT64", (-1, -1)), huge, memoryview(b"12345678"))
    with pytest.raises(InvalidInputError, match="data has 1 elements"):
        from_json(TensorSpec("x", "INT64", (-1, -1)), huge, [1])
