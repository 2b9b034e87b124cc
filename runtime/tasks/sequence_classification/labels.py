"""What the outputs of a classifier mean: their names, and the functions that turn logits into scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.bundles.files import CONFIG, read_json
from dynamic_tinybert.runtime.common.errors import BundleFormatError, InvalidInputError

Floats = npt.NDArray[np.floating]
Kind = Literal["score", "classes", "labels"]
"""What a model gives for a text: one number, one of several classes, or any number of labels that go together."""
Function = Literal["sigmoid", "softmax", "none"]
"""What is applied to logits, by its name in transformers' pipeline."""

_MULTI_LABEL = "multi_label_classification"
_REGRESSION = "regression"
_ACTIVATIONS: Mapping[str, Function] = {"Identity": "none", "Sigmoid": "sigmoid"}  # by the names of PyTorch's classes
_PROBLEM_TYPES = (None, _REGRESSION, "single_label_classification", _MULTI_LABEL)


def sigmoid(logits: Floats) -> Floats:
    """The logistic function of each number; numbers of any size are safe."""
    small: Floats = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(logits.dtype)


def softmax(logits: Floats) -> Floats:
    """The softmax over the last axis."""
    powers: Floats = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = powers / powers.sum(-1, keepdims=True)
    return result


def identity(logits: Floats) -> Floats:
    """The logits as they are."""
    return logits


FUNCTIONS: Mapping[Function, Callable[[Floats], Floats]] = {"sigmoid": sigmoid, "softmax": softmax, "none": identity}
"""The functions by name."""


@dataclass(frozen=True)
class Labels:
    """The outputs of a classifier.

    Attributes:
        names: Name of each output, in order.
        problem_type: As in config.json: "regression", "single_label_classification", "multi_label_classification" or
            None.
        activation: The class of what sentence-transformers' CrossEncoder applies to the logits, as config.json names
            it; None if it does not say. Only `cross_encoder_function` needs to know it.
    """

    names: tuple[str, ...]
    problem_type: str | None = None
    activation: str | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Labels:
        """Read the labels of a bundle from its config.json, with transformers' defaults.

        Raises:
            BundleFormatError: An entry is not what transformers writes.
        """
        return cls.in_folder(bundle.path)

    @classmethod
    def in_folder(cls, folder: Path) -> Labels:
        """Read the labels from the config.json in a folder; errors as for `of`."""
        config = read_json(folder / CONFIG)
        problem_type = config.get("problem_type")
        if problem_type not in _PROBLEM_TYPES:
            raise BundleFormatError(f"{CONFIG}: problem_type is {problem_type!r:.60}; known ones are {_PROBLEM_TYPES}")
        return cls(_names(config), problem_type, _activation(config))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def kind(self) -> Kind:
        """What the model gives for a text."""
        if self.problem_type == _MULTI_LABEL:
            return "labels"
        return "score" if len(self) == 1 else "classes"

    @property
    def function(self) -> Function:
        """What transformers' pipeline applies to the logits."""
        if self.problem_type == _REGRESSION:
            return "none"
        return "softmax" if self.kind == "classes" else "sigmoid"

    @property
    def cross_encoder_function(self) -> Function:
        """What sentence-transformers' CrossEncoder applies to the logits.

        Raises:
            BundleFormatError: The activation is not one of those that exist here.
        """
        if self.activation is None:
            return "sigmoid" if len(self) == 1 else "none"
        name = self.activation.rpartition(".")[2]
        if name not in _ACTIVATIONS:
            raise BundleFormatError(
                f"{CONFIG}: the activation {self.activation!r:.60} is not known; known ones are "
                f"{', '.join(_ACTIVATIONS)}; give function_to_apply='sigmoid' or 'none' to use another function"
            )
        return _ACTIVATIONS[name]

    def function_named(self, name: str | None) -> Function:
        """The function of this name; None and "default" select the model's.

        Raises:
            InvalidInputError: There is no such function.
        """
        if name is None or name == "default":
            return self.function
        for function in get_args(Function):
            if isinstance(name, str) and name.lower() == function:
                chosen: Function = function
                return chosen
        known = ", ".join(map(repr, ("default", *get_args(Function))))
        raise InvalidInputError(f"function_to_apply must be one of {known}, not {name!r:.60}")


def _names(config: Mapping[str, object]) -> tuple[str, ...]:
    given, number = config.get("id2label"), config.get("num_labels", 2)
    if given is None:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= 65536:
            raise BundleFormatError(f"{CONFIG}: num_labels is {number!r:.60}, and must be a positive number")
        return tuple(f"LABEL_{i}" for i in range(number))
    if not isinstance(given, dict) or not given:
        raise BundleFormatError(f"{CONFIG}: id2label must be an object of names, not {given!r:.60}")
    keys = [str(i) for i in range(len(given))]
    if set(given) != set(keys) or not all(isinstance(name, str | int) for name in given.values()):
        raise BundleFormatError(
            f"{CONFIG}: id2label must give a name to each of 0 … {len(given) - 1}, not {given!r:.90}"
        )
    return tuple(str(given[key]) for key in keys)


def _activation(config: Mapping[str, object]) -> str | None:
    """What config.json says for CrossEncoder, under the key of its version 4 or the one before."""
    own = config.get("sentence_transformers")
    path = own.get("activation_fn") if isinstance(own, dict) else None
    path = path or config.get("sbert_ce_default_activation_function")
    return None if path is None else str(path)
