"""Tensors on the wire: as JSON, and as bytes in the form of Triton's binary tensor data extension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from reprlib import repr as shortened
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import InvalidInputError

DataType = Literal["BOOL", "INT64", "FP32", "FP64", "BYTES"]
"""Names of the protocol's data types that our models have."""

NUMPY_TYPES: dict[DataType, str] = {"BOOL": "?", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8", "BYTES": "O"}
"""The types of arrays; elements of BYTES are texts here, UTF-8 on the wire."""

_LENGTH_BYTES = 4  # of an element of BYTES, before the element itself


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says about one of its tensors.

    Attributes:
        name: Its name.
        datatype: Type of its elements.
        shape: Its dimensions, at most two; -1 for those of any size.
        optional: Whether a request may leave it out, or a response may lack it.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    optional: bool = False

    def metadata(self) -> dict[str, Any]:
        """The protocol's description of it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def checked_shape(spec: TensorSpec, shape: object) -> tuple[int, ...]:
    """The dimensions that a request gives an input.

    Raises:
        InvalidInputError: They are not as many integers of at least 1 as the input has dimensions.
    """
    if (
        not isinstance(shape, list)
        or len(shape) != len(spec.shape)
        or not all(type(size) is int and 1 <= size < 2**63 for size in shape)
    ):
        raise InvalidInputError(
            f"input {spec.name}: shape must be a list of {len(spec.shape)} integers from 1 to 2**63 - 1, "
            f"not {shortened(shape)}"
        )
    return tuple(shape)


def from_json(spec: TensorSpec, shape: tuple[int, ...], data: object) -> npt.NDArray[Any]:
    """The array of an input, INT64 or BYTES, that a request gives as JSON.

    Args:
        spec: The input.
        shape: Its checked dimensions.
        data: Its elements, nested as the dimensions are, or as one flat list.

    Raises:
        InvalidInputError: The elements do not fill the shape, or are not of the input's type.
    """
    elements = _flat(spec, shape, data)
    _check_count(spec, shape, len(elements))
    if spec.datatype == "BYTES":
        for place, text in enumerate(elements):
            _check_text(spec, place, text)
        return _texts(elements, shape)
    for value in elements:
        if type(value) is not int:
            raise InvalidInputError(f"input {spec.name}: data must hold integers, not {shortened(value)}")
    try:
        return np.array(elements, np.int64).reshape(shape)
    except OverflowError as error:
        largest = max(elements, key=abs)
        raise InvalidInputError(f"input {spec.name}: {shortened(largest)} does not fit into 64 bits") from error


def from_binary(spec: TensorSpec, shape: tuple[int, ...], raw: memoryview) -> npt.NDArray[Any]:
    """The array of an input, INT64 or BYTES, that a request gives as bytes.

    Args:
        spec: The input.
        shape: Its checked dimensions.
        raw: Its elements in row-major order: little-endian integers, or texts in UTF-8, each after its length in bytes
            as a 4-byte unsigned integer.

    Raises:
        InvalidInputError: The bytes do not fill the shape, or are no such elements.
    """
    if spec.datatype == "BYTES":
        return _texts(_split(spec, math.prod(shape), raw), shape)
    expected = math.prod(shape) * np.dtype(NUMPY_TYPES[spec.datatype]).itemsize
    if len(raw) != expected:
        raise InvalidInputError(
            f"input {spec.name}: binary_data_size is {len(raw)}, but shape {list(shape)} of {spec.datatype} has "
            f"{expected} bytes"
        )
    # A copy, because the bytes begin anywhere in the body.
    return np.frombuffer(raw, NUMPY_TYPES[spec.datatype]).astype(np.int64).reshape(shape)


def to_json(array: npt.NDArray[Any]) -> list[Any]:
    """The elements of an array as one flat list; floats as the doubles that round back to the same bits."""
    elements: list[Any] = array.ravel().tolist()
    return elements


def to_binary(datatype: DataType, array: npt.NDArray[Any]) -> bytes:
    """The elements of an array as bytes; see `from_binary`. BOOL is one byte, 0 or 1."""
    if datatype == "BYTES":
        encoded = [text.encode() for text in array.ravel().tolist()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in encoded)
    return array.astype(NUMPY_TYPES[datatype], copy=False).tobytes()


def _flat(spec: TensorSpec, shape: tuple[int, ...], data: object) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInputError(f"input {spec.name}: data must be a list, not {shortened(data)}")
    if len(shape) == 1 or not any(isinstance(row, list) for row in data):
        return data
    if len(data) != shape[0] or any(not isinstance(row, list) or len(row) != shape[1] for row in data):
        raise InvalidInputError(f"input {spec.name}: data is nested otherwise than its shape {list(shape)}")
    return list(chain.from_iterable(data))


def _check_count(spec: TensorSpec, shape: tuple[int, ...], count: int) -> None:
    expected = math.prod(shape)
    if count != expected:
        raise InvalidInputError(f"input {spec.name}: data has {count} elements, but shape {list(shape)} has {expected}")


def _check_text(spec: TensorSpec, place: int, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"input {spec.name}: element {place} must be a text, not {shortened(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"input {spec.name}: element {place} has half of a surrogate pair: {error}") from error


def _split(spec: TensorSpec, count: int, raw: memoryview) -> list[str]:
    """The texts in the bytes of a tensor; stops at the first that is wrong, so a huge `count` costs nothing."""
    texts: list[str] = []
    begin = 0
    while begin < len(raw):
        if len(texts) == count:
            raise InvalidInputError(f"input {spec.name}: bytes are left over after {count} elements, as shape says")
        first = begin + _LENGTH_BYTES
        end = first + int.from_bytes(raw[begin:first], "little")
        if first > len(raw) or end > len(raw):
            raise InvalidInputError(f"input {spec.name}: element {len(texts)} ends after binary_data_size={len(raw)}")
        try:
            texts.append(str(raw[first:end], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"input {spec.name}: element {len(texts)} is not UTF-8: {error}") from error
        begin = end
    if len(texts) != count:
        raise InvalidInputError(f"input {spec.name}: binary data has {len(texts)} elements, but its shape has {count}")
    return texts


def _texts(texts: Sequence[str], shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array.reshape(shape)
