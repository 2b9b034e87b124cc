"""Requests of all kinds, good and bad, in random order, each with the responses that a server may give to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from benchmarks.serving.connection import NO_REPLY, json_request, predict_request, request
from benchmarks.serving.texts import Pair


class Behaviour(Enum):
    """What a client does with the bytes of a request."""

    ASK = "sends them and waits for the response"
    HANG_UP = "sends them and resets the connection after a moment"
    STALL = "sends them slowly, and never all of them"


@dataclass(frozen=True, slots=True)
class Case:
    """A request.

    Attributes:
        kind: What it is, for the table.
        data: Its bytes.
        expected: Statuses that may come; `NO_REPLY` if the connection may end without one.
        behaviour: What the client does with it.
        last: Whether the client closes the connection after the response, since what follows would not be a request.
    """

    kind: str
    data: bytes
    expected: frozenset[int] = frozenset({200})
    behaviour: Behaviour = Behaviour.ASK
    last: bool = False


class Mixture:
    """Draws requests."""

    def __init__(self, pairs: Sequence[Pair], model: Mapping[str, Any], generator: np.random.Generator) -> None:
        """Draw requests with these questions and texts.

        Args:
            pairs: Questions and texts; texts are cut and joined to other lengths.
            model: What the server says of its model: ``model`` of GET /info.
            generator: Source of all choices.
        """
        self._pairs = pairs
        self._words = [word for _, context in pairs for word in context.split()]
        self._model = model
        self._random = generator
        self._bad = _bad_requests(pairs[0], model)
        shares: Mapping[Callable[[], Case], float] = {
            self._plain: 0.40,
            self._budget: 0.20,
            self._ratios: 0.05,
            self._list: 0.04,
            self._deadline: 0.02,
            self._long: 0.005,
            self._explain: 0.01,
            self._protocol_v2_text: 0.05,
            self._protocol_v2_ids: 0.05,
            self._state: 0.025,
            self._bad_body: 0.10,
            self._garbage: 0.01,
            self._hang_up_in_head: 0.01,
            self._hang_up_in_body: 0.01,
            self._hang_up_waiting: 0.018,
            self._stall: 0.002,
        }
        self._kinds = list(shares)
        self._shares = np.array(list(shares.values())) / sum(shares.values())

    def draw(self) -> Case:
        """The next request."""
        return self._kinds[self._random.choice(len(self._kinds), p=self._shares)]()

    def largest(self) -> list[Case]:
        """The requests that take most memory, at each length configuration."""
        context = " ".join(self._words[:1500])
        question, some = self._pair(60, 61)
        names = [*self._model["length_configs"], [0.9] * self._model["num_layers"]]
        cases = [Case("predict, long", predict_request(question, context, {"length_config": name})) for name in names]
        cases += [Case("predict, long", predict_request(question, context, {"budget_ms": b})) for b in (1, 1e6)]
        return [*cases, Case("explain", json_request("/explain", {"question": question, "context": some}))]

    def _pair(self, fewest: int = 5, most: int = 120) -> Pair:
        """A question, and a text of a random number of words, more often of few than of many."""
        question = self._pairs[int(self._random.integers(len(self._pairs)))][0]
        count = round(fewest * (most / fewest) ** self._random.random())
        start = int(self._random.integers(max(1, len(self._words) - count)))
        return question, " ".join(self._words[start : start + count])

    def _config(self) -> str:
        return str(self._random.choice(list(self._model["length_configs"])))

    def _plain(self) -> Case:
        return Case("predict", predict_request(*self._pair(), {"length_config": self._config()}))

    def _budget(self) -> Case:
        budget = float(np.exp(self._random.uniform(np.log(1), np.log(200))))
        return Case("predict, budget", predict_request(*self._pair(), {"budget_ms": budget}))

    def _ratios(self) -> Case:
        ratios = np.sort(self._random.uniform(0.05, 1, self._model["num_layers"]))[::-1]
        return Case("predict, keep ratios", predict_request(*self._pair(), {"length_config": ratios.tolist()}))

    def _list(self) -> Case:
        pairs = [self._pair(most=40) for _ in range(self._random.integers(2, 6))]
        inputs = [{"question": question, "context": context} for question, context in pairs]
        content = {"inputs": inputs, "parameters": {"top_k": int(self._random.integers(1, 4))}}
        return Case("predict, list", json_request("/predict", content))

    def _deadline(self) -> Case:
        data = predict_request(*self._pair(), {"timeout_ms": float(self._random.uniform(0.1, 100))})
        return Case("predict, deadline", data, frozenset({200, 429, 504}))

    def _long(self) -> Case:
        parameters = {"length_config": self._config()}
        return Case("predict, long", predict_request(*self._pair(400, 1500), parameters))

    def _explain(self) -> Case:
        question, context = self._pair(most=60)
        return Case("explain", json_request("/explain", {"question": question, "context": context}))

    def _protocol_v2_text(self) -> Case:
        question, context = self._pair()
        inputs = [_bytes_tensor("question", question), _bytes_tensor("context", context)]
        return Case("v2, text", json_request(self._infer_path(""), {"inputs": inputs}))

    def _protocol_v2_ids(self) -> Case:
        length = int(self._random.integers(4, min(96, self._model["max_length"])))
        ids = self._random.integers(0, self._model["vocab_size"], length).tolist()
        content = {"inputs": [_ids_tensor(ids)], "parameters": {"length_config": self._config()}}
        return Case("v2, token ids", json_request(self._infer_path("-tokens"), content))

    def _infer_path(self, suffix: str) -> str:
        return f"/v2/models/{self._model['name']}{suffix}/infer"

    def _state(self) -> Case:
        paths = ["/metrics", "/info", "/health", "/v2", "/v2/health/live", "/openapi.json", "/"]
        return Case("state", request("GET", str(self._random.choice(paths))))

    def _bad_body(self) -> Case:
        return self._bad[self._random.integers(len(self._bad))]

    def _garbage(self) -> Case:
        kinds = (
            self._random.bytes(int(self._random.integers(1, 3000))) + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self._random.bytes(200) + b"\r\n\r\n",  # TLS's hello
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        data = kinds[self._random.integers(len(kinds))]
        return Case("garbage", data, frozenset({400, 404, 408, 414, 431, NO_REPLY}), last=True)

    def _hang_up_in_head(self) -> Case:
        data = predict_request(*self._pair())
        return Case("hang up in the head", data[: self._random.integers(1, 60)], frozenset(), Behaviour.HANG_UP)

    def _hang_up_in_body(self) -> Case:
        data = predict_request(*self._pair())
        start = data.index(b"\r\n\r\n") + 4
        part = data[: self._random.integers(start, len(data) - 1)]
        return Case("hang up in the body", part, frozenset(), Behaviour.HANG_UP)

    def _hang_up_waiting(self) -> Case:
        return Case("hang up before the response", predict_request(*self._pair()), frozenset(), Behaviour.HANG_UP)

    def _stall(self) -> Case:
        data = predict_request(*self._pair())
        cut = data.index(b"\r\n\r\n") if self._random.random() < 0.5 else len(data)
        return Case("stall", data[: cut - 1], frozenset({408, NO_REPLY}), Behaviour.STALL)


def _bad_requests(pair: Pair, model: Mapping[str, Any]) -> list[Case]:
    """Requests that are well-formed HTTP, but not what the server takes."""
    good = {"question": pair[0], "context": pair[1]}
    infer = f"/v2/models/{model['name']}-tokens/infer"

    def raw(body: bytes) -> bytes:
        return request("POST", "/predict", body, {"content-type": "application/json"})

    bad_values: Mapping[str, Sequence[Any]] = {
        "budget_ms": (0, -1, "20", True, [20], {}),
        "max_f1_loss": (-0.1, "1", []),
        "top_k": (0, -1, 1.5, 10**9, 10**30, "1"),
        "length_config": ("no such", "", [], [0.5], [2.0] * model["num_layers"], {}),
        "timeout_ms": (0, -1, "1"),
        "unknown": (1,),
    }
    by_status = {
        400: [
            raw(b""),
            raw(b'{"inputs": '),
            raw(b"\xff\xfe\x00"),
            raw(b"[" * 10_000),
            raw(b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
            raw(json.dumps({"inputs": {**good, "question": "\ud800 who ?"}}).encode()),
            raw(json.dumps({"inputs": good, "parameters": {"budget_ms": float("nan")}}).encode()),
            raw(json.dumps({"inputs": good, "parameters": {"top_k": 1}}).encode().replace(b"1}", b"1e999}")),
        ],
        404: [request("GET", "/nothing"), json_request("/v2/models/other/infer", {"inputs": []})],
        405: [request("GET", "/predict"), request("DELETE", "/info")],
        413: [
            predict_request(pair[0], "word " * 200_000),
            json_request("/predict", {"inputs": [good] * 300}),
        ],
        415: [request("POST", "/predict", b"who ?", {"content-type": "text/plain"})],
        422: [
            *(raw(body) for body in (b"null", b"[]", b"3", b"{}", b'{"inputs": 3}', b'{"inputs": []}')),
            json_request("/predict", {"inputs": {"question": 1, "context": "a"}}),
            json_request("/predict", {"inputs": {**good, "more": 1}}),
            json_request("/predict", {"inputs": good, "more": 1}),
            predict_request("", pair[1]),
            predict_request(pair[0], ""),
            predict_request(pair[0], " \u200b"),
            *(predict_request(*pair, {name: value}) for name, values in bad_values.items() for value in values),
            json_request(infer, {"inputs": [_ids_tensor([model["vocab_size"]])]}),
            json_request(infer, {"inputs": [_ids_tensor([-1, 3])]}),
            json_request(infer, {"inputs": [_ids_tensor([1, 2]) | {"shape": [3, 7]}]}),
            json_request(infer, {"inputs": [_ids_tensor([1, 2]) | {"datatype": "COMPLEX"}]}),
            json_request(infer, {"inputs": []}),
        ],
    }
    cases = [Case(f"bad, {status}", data, frozenset({status})) for status, own in by_status.items() for data in own]
    terabyte = request("POST", "/predict", headers={"content-length": str(1 << 40)})
    return [*cases, Case("bad, 413", terabyte, frozenset({413}), last=True)]


def _bytes_tensor(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [1], "data": [text]}


def _ids_tensor(ids: list[int]) -> dict[str, Any]:
    return {"name": "input_ids", "datatype": "INT64", "shape": [1, len(ids)], "data": ids}
