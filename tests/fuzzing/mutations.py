"""Damage to a bundle's files by a seed, with the digests made right again, as an author could write them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

MANIFEST = "dynamic_tinybert.json"

_INTEGERS = [0, 1, -1, 2, 3, 7, 8, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 6148914691236517206]
_VALUES: list[Any] = [
    *_INTEGERS,
    -(2**63),
    10**400,
    1e308,
    float("inf"),  # written as 1e999
    5e-324,
    0.5,
    -0.0,
    None,
    True,
    "",
    "x",
    "\ud800",
    "a" * 70_000,
    [],
    {},
    [None],
    {"": []},
]
_DTYPES = {"f32": "f4", "i8": "i1", "i32": "i4", "i64": "i8"}
_ATTRIBUTES = [*map(str, _INTEGERS), "", "-9223372036854775808", "?", "?,?", "1,1", "nan", "1e999", "true", "x" * 5000]
_FLOATS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e-45, 1.0, 255.0]


def mutate(source: Path, target: Path, seed: int) -> str:
    """Copy a bundle, damage one of its files, one to three times, and make the digests right; says what was done."""
    generator = random.Random(seed)
    shutil.copytree(source, target)
    files = sorted(file.name for file in target.iterdir() if file.suffix != ".md")
    name = generator.choice(files)
    ways: list[Callable[[Path, random.Random], str]] = [_change_bytes]
    if name.endswith(".json"):
        ways += [_change_json] * 9
    elif name.endswith(".xml"):
        ways += [_change_xml] * 9
    elif name.endswith(".bin"):
        ways += [_change_constant] * 9
    elif name.endswith(".safetensors"):
        ways += [_change_tensors] * 6
    if name == MANIFEST:
        make_digests_right(target)
        done = _change_json(target / name, generator)
        _sign(target / name)
        return f"{name}: {done}"
    way = generator.choice(ways)
    done = "; ".join(way(target / name, generator) for _ in range(generator.choice((1, 1, 1, 2, 3))))
    make_digests_right(target)
    return f"{name}: {done}"


def make_digests_right(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    _sign(folder / MANIFEST)


def _sign(file: Path) -> None:
    try:
        manifest = json.loads(file.read_text())
        manifest.pop("manifest_sha256", None)
        canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    except (ValueError, AttributeError, RecursionError):
        return  # no JSON, no object: nothing can be signed
    manifest["manifest_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(_dumped(manifest))


def _dumped(data: object) -> str:
    return json.dumps(data).replace("Infinity", "1e999")


def _change_bytes(file: Path, generator: random.Random) -> str:
    content = bytearray(file.read_bytes())
    at, size = generator.randrange(len(content) + 1), generator.choice((1, 4, 64, 4096))
    way = generator.choice(("flip", "truncate", "insert", "fill", "append"))
    if way == "flip" and content:
        content[min(at, len(content) - 1)] ^= 1 << generator.randrange(8)
    elif way == "truncate":
        del content[at:]
    elif way == "insert":
        content[at:at] = generator.randbytes(size)
    elif way == "fill":
        content[at : at + size] = generator.choice((b"\x00", b"\xff", b"\x7f")) * size
    else:
        content += generator.randbytes(size)
    file.write_bytes(content)
    return f"{way} at {at}"


def _places(data: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - JSON
    """All containers of a document with the keys of what they hold; of long lists some."""
    found: list[tuple[Any, Any]] = []
    waiting = [data]
    while waiting and len(found) < 4000:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else []
        for key in list(keys)[:60]:
            found.append((here, key))
            waiting.append(here[key])
    return found


def _change_json(file: Path, generator: random.Random) -> str:
    data = json.loads(file.read_text())
    places = _places(data)
    if not places:
        return "nothing to change"
    container, key = generator.choice(places)
    value = container[key]
    way = generator.choice(("replace", "replace", "replace", "remove", "nudge", "swap", "add", "nest"))
    if way == "remove":
        del container[key]
    elif way == "nudge" and isinstance(value, int | float):
        container[key] = generator.choice((value + 1, value - 1, value * 2, -value, value / 2, value * 10**18))
    elif way == "swap":
        other, at = generator.choice(places)
        if not any(part is other for part in _parts(value)) and not any(
            part is container for part in _parts(other[at])
        ):
            container[key], other[at] = other[at], container[key]
    elif way == "add" and isinstance(container, dict):
        container[generator.choice(("", "extra", "a" * 5000))] = generator.choice(_VALUES)
    elif way == "nest":
        nested = value
        for _ in range(generator.choice((1, 10, 800))):
            nested = [nested]
        container[key] = nested
    else:
        container[key] = generator.choice(_VALUES)
    file.write_text(_dumped(data))
    return f"{way} {str(key)[:60]} to {str(container.get(key) if isinstance(container, dict) else '')[:60]}"


def _parts(data: Any) -> list[Any]:  # noqa: ANN401 - JSON
    return [data, *(container[key] for container, key in _places(data)), *(c for c, _ in _places(data))]


def _change_xml(file: Path, generator: random.Random) -> str:
    try:
        tree = ElementTree.parse(file)
    except ElementTree.ParseError:
        return "no XML any more"
    parents = {child: parent for parent in tree.iter() for child in parent}
    elements = list(parents)
    by_tag: dict[str, list[ElementTree.Element]] = {}
    for element in elements:  # as many edges as there are do not outweigh the rest
        by_tag.setdefault(element.tag, []).append(element)
    element = generator.choice(by_tag[generator.choice(sorted(by_tag))])
    way = generator.choice(
        ("attribute", "attribute", "attribute", "borrow", "borrow", "text", "remove", "repeat", "tag")
    )
    done = f"{way} of {element.tag} {element.attrib}"
    if way in ("attribute", "borrow") and element.attrib:
        key = generator.choice(sorted(element.attrib))
        others = [other.attrib[key] for other in by_tag[element.tag] if key in other.attrib]
        element.attrib[key] = generator.choice(_ATTRIBUTES if way == "attribute" else others)
        done += f": {key} = {element.attrib[key][:40]}"
    elif way == "text":
        element.text = generator.choice(_ATTRIBUTES)
    elif way == "remove":
        parents[element].remove(element)
    elif way == "repeat":
        parents[element].append(element)
    else:
        element.tag = generator.choice(sorted(by_tag))
    tree.write(file)
    return done[:200]


def _change_constant(file: Path, generator: random.Random) -> str:
    """Numbers of one of the graph's constants; each is as likely as another, large or small."""
    constants = [
        layer.find("data")
        for layer in ElementTree.parse(file.with_suffix(".xml")).iter("layer")
        if layer.get("type") == "Const"
    ]
    by_type: dict[str, list[dict[str, str]]] = {}
    for data in constants:
        if data is not None:
            by_type.setdefault(data.attrib["element_type"], []).append(data.attrib)
    attributes = generator.choice(by_type[generator.choice(sorted(by_type))])
    kind = np.dtype(_DTYPES[attributes["element_type"]])
    content = bytearray(file.read_bytes())
    offset, size = int(attributes["offset"]), int(attributes["size"])
    values: npt.NDArray[Any] = np.frombuffer(content, kind, size // kind.itemsize, offset)
    if not values.size:
        return "an empty constant"
    if kind.kind == "f":
        value: Any = generator.choice(_FLOATS)
    else:
        value = np.array(generator.choice([v for v in _INTEGERS if v < 2**63])).astype(kind)
    if generator.random() < 0.5:
        values[generator.randrange(values.size)] = value
    else:
        values[:] = value
    file.write_bytes(content)
    return f"{attributes} is {value}"


def _change_tensors(file: Path, generator: random.Random) -> str:
    tensors = load_file(file)
    name = generator.choice(sorted(tensors))
    tensor = tensors[name]
    way = generator.choice(("remove", "rename", "shape", "dtype", "value", "layer", "swap"))
    if way == "remove":
        del tensors[name]
    elif way == "rename":
        tensors[generator.choice((name + "x", f"layer.{'9' * 5000}.context", "layer.0.context", ""))] = tensor
    elif way == "layer":
        tensors[f"layer.{generator.choice((0, 1, 2, 3, 255, 256, 2**64))}.{name.partition('.')[2]}"] = tensor
    elif way == "shape":
        shapes = [(), (0,), (1,), (1, 1), tensor.shape[::-1], (*tensor.shape, 1), (*tensor.shape[:-1], 3), (7, 5)]
        tensors[name] = np.ones(generator.choice(shapes), np.float32)
    elif way == "dtype":
        tensors[name] = tensor.astype(generator.choice(("f8", "f2", "i8", "u1", "?")))
    elif way == "swap":
        other = generator.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other], tensor
    else:
        changed = tensor.copy()
        changed.flat[generator.randrange(changed.size)] = generator.choice(_FLOATS)
        tensors[name] = changed
    save_file(tensors, file)
    return f"{way} {name[:60]}"
