"""Clients that are slow, stall, send garbage or too much: on real connections."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.http_app import CONTEXT, QUESTION
from support.live_server import LiveServer, live_server
from support.tiny import tiny_bundle

BODY = json.dumps({"inputs": {"question": QUESTION, "context": CONTEXT}}).encode()
LIMIT = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("connections"))
    with live_server(bundle, receive_timeout_s=0.3, keep_alive_s=30, max_body_bytes=LIMIT) as server:
        yield server


def post(*headers: str) -> bytes:
    return "\r\n".join(["POST /predict HTTP/1.1", "host: server", *headers, "", ""]).encode()


WHOLE = post(f"content-length: {len(BODY)}") + BODY


def until_closed(connection: socket.socket) -> bytes:
    """All that comes before the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def trickle(connection: socket.socket, data: bytes, *, pause: float = 0.02) -> None:
    """Send the same again and again, by default slowly, until it fails; at most some minutes."""
    for _ in range(10_000):
        connection.sendall(data)
        time.sleep(pause)


def response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next response, which has a Content-Length."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, value = line.decode().split(": ", 1)
            headers[name] = value
        return status, headers, file.read(int(headers["content-length"]))


def test_a_connection_serves_one_request_after_the_other(server: LiveServer) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(WHOLE)
            status, headers, body = response(connection)
            assert (status, "connection" in headers) == (200, False)
            assert json.loads(body)["answer"] in CONTEXT


@pytest.mark.parametrize("sent", [b"", b"POST /pre", post()[:-2], b"\r\n"])
def test_without_the_head_of_a_request_the_connection_is_closed(server: LiveServer, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        assert until_closed(connection) == b""
    with server.connect() as connection:
        connection.sendall(WHOLE)
        assert response(connection)[0] == 200
        connection.sendall(sent or b"\n")
        assert until_closed(connection) == b""


def test_a_head_that_comes_slowly_is_given_up_in_time(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            trickle(connection, b"x-a: b\r\n")  # each line in less than the time that the whole head has


def test_a_body_that_stalls_gets_408_and_its_place_is_free(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(post("content-length: 100") + b'{"inputs"')
        received = until_closed(connection)
    assert b" 408 " in received.partition(b"\r\n")[0]
    assert b'"error_type": "receive_timeout"' in received


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_refused_and_the_connection_goes_on(server: LiveServer, chunked: bool) -> None:
    if chunked:
        chunk = b"%x\r\n%s\r\n" % (LIMIT // 2, b"1" * (LIMIT // 2))
        sent = post("transfer-encoding: chunked") + chunk * 8 + b"0\r\n\r\n"
    else:
        sent = post(f"content-length: {4 * LIMIT}") + b"1" * (4 * LIMIT)
    with server.connect() as connection:
        connection.sendall(sent)
        status, _, body = response(connection)
        assert (status, json.loads(body)["error_type"]) == (413, "too_large")
        connection.sendall(WHOLE)
        assert response(connection)[0] == 200


def test_a_refused_body_without_end_is_not_read_for_ever(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(post("content-length: 1000000000"))
        assert response(connection)[0] == 413
        with pytest.raises(ConnectionError):
            trickle(connection, b"1" * 1000)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\xfc",
        b"x" * 100,
    ],
)
def test_garbage_gets_400_as_json(server: LiveServer, garbage: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(garbage)
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error_type"] == "malformed"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(WHOLE) - 1), noise=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_a_request_with_noise_in_it_is_no_server_error(server: LiveServer, place: int, noise: bytes, cut: bool) -> None:
    with server.connect() as connection:
        connection.sendall(WHOLE[:place] + noise + (b"" if cut else WHOLE[place:]))
        connection.shutdown(socket.SHUT_WR)
        received = until_closed(connection)
    assert b"HTTP/1.1 5" not in received


def test_a_client_that_does_not_read_is_cut_off(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.settimeout(0.05)
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, buffer, 16_384)
        with pytest.raises(TimeoutError):  # both directions are full
            trickle(connection, b"GET /openapi.json HTTP/1.1\r\nhost: server\r\n\r\n" * 1000, pause=0)
        while server.connections:
            time.sleep(0.01)


def test_no_connection_stays(server: LiveServer) -> None:
    while server.connections:
        time.sleep(0.01)
    with server.connect() as connection:
        connection.sendall(WHOLE)
        assert response(connection)[0] == 200
    while server.connections:
        time.sleep(0.01)
