"""Garbage by a fuzzer: whatever comes is answered, never with a 5xx, and the worker that was there at first stays.

The model gives back what it gets (`steady`), so that only the server can be at fault.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.test_runtime_processes import FASTEST, KINDS, Homes, Kind, Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.test_runtime_processes import Service

SERVERS = [*[kind for kind in KINDS if kind.server == "gunicorn"][:1], *FASTEST]
INVOKE, INFER = "/api/model/invoke", "/v2/models/steady/infer"
LIMIT = 20_000
TENSOR = b'{"inputs": [{"name": "a", "shape": [%s], "datatype": "FP64", "data": %s}]}'
fuzzed = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class Target(NamedTuple):
    service: Service
    connections: list[http.client.HTTPConnection]

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """The answer; over the connection of the last one as long as the server keeps it."""
        [connection] = self.connections
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return answer.status, gzip.decompress(data) if answer.headers["Content-Encoding"] == "gzip" else data

    def check(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        status, data = self.send(path, body, headers)
        assert status == 200 or 400 <= status < 500, data
        try:
            payload = json.loads(data)
        except RecursionError:  # deeper than this process reads; the server wrote what it was given
            assert status == 200
            return
        if status == 200:
            assert ("outputs" if path == INFER else "prediction") in payload
        else:
            [(name, text)] = payload.items()
            assert name == ("error" if path == INFER else "message")
            assert isinstance(text, str)
            assert text


@pytest.fixture(scope="module", params=SERVERS, ids=lambda kind: f"{kind.server}-{kind.version}")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    kind: Kind = request.param
    homes = Homes(tmp_path_factory.mktemp("images"), {})
    runner = Runner(kind.python, homes.of(kind), tmp_path_factory.mktemp("fuzz"), kind.server)
    with runner.serve("steady", ODAHU_MAX_BODY_BYTES=str(LIMIT)) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        yield Target(service, [connection])
        connection.close()
        assert service.stop()[0] == 0
        assert service.log.count("Booting worker") == 1
        assert "Traceback" not in service.log


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20, max_value=10**40)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(categories=["Cs"]), max_size=3)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
rows = st.lists(st.lists(st.floats() | scalars, max_size=4), max_size=5) | st.lists(values, max_size=4)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "matrix"]) | values,
        "shape": st.lists(st.integers(0, 4), max_size=3) | values,
        "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", "FP16", "UINT8"]) | values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-3, 40) | values}) | values,
        "data": st.lists(scalars, max_size=6) | values,
    },
)
documents = st.one_of(
    values,
    st.fixed_dictionaries({"data": rows}, optional={"columns": st.lists(st.text(max_size=3) | values, max_size=4)}),
    st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.text(max_size=2), values, max_size=3), max_size=3)}),
    st.fixed_dictionaries({"inputs": st.lists(tensors, max_size=3)}, optional={"id": values, "parameters": values}),
)
texts = documents.map(lambda document: json.dumps(document).encode())
lines = st.lists(st.lists(scalars.map(str), max_size=4).map(",".join), max_size=5).map("\r\n".join)
tables = lines.map(lambda text: text.encode("utf-8", "surrogatepass"))
bodies = st.one_of(
    texts,
    tables,
    st.binary(max_size=200),
    st.tuples(texts, st.binary(max_size=40)).map(b"".join),
    st.tuples(texts, st.integers(0, 50)).map(lambda pair: pair[0][: -pair[1] or None]),
)
packed = st.one_of(
    bodies.map(gzip.compress),
    st.tuples(bodies.map(gzip.compress), st.integers(1, 20)).map(lambda pair: pair[0][: -pair[1]]),
    st.tuples(bodies.map(gzip.compress), st.binary(max_size=10)).map(b"".join),
    bodies,
)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
extras = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["application/json", "text/csv", "text/csv; charset=latin-1"]) | printable,
        "Accept": st.sampled_from(["*/*", "application/json", "text/csv"]) | printable,
        "Accept-Encoding": st.sampled_from(["gzip", "gzip;q=0", "*"]) | printable,
        "Inference-Header-Content-Length": st.integers(-2, 300).map(str) | printable,
        "Request-Id": printable,
        "traceparent": printable,
    },
)


@fuzzed
@given(path=st.sampled_from([INVOKE, INFER]), body=bodies, headers=extras)
@example(path=INVOKE, body=b"\x00", headers={})
@example(path=INVOKE, body=b"[" * 19_000, headers={})
@example(path=INVOKE, body=b'{"data": [[%s]]}' % (b"9" * 6000), headers={})
@example(path=INVOKE, body=b'{"data": [[1e999, -1e999]]}', headers={})
@example(path=INVOKE, body=b'{"data": [["\\ud800", 1]]}', headers={})
@example(path=INVOKE, body=b'{"data": [[%s]]}' % (b"[" * 5000 + b"]" * 5000), headers={})
@example(path=INVOKE, body=b'{"data": [%s]}' % (b'{"a":' * 3000 + b"1" + b"}" * 3000), headers={})
@example(path=INVOKE, body=b"a,b\n1,\x00\n", headers={"Content-Type": "text/csv"})
@example(path=INVOKE, body=b'a,b\n"1,2\n', headers={"Content-Type": "text/csv"})
@example(path=INVOKE, body=b" " * (LIMIT + 1), headers={})
@example(path=INFER, body=b"{}", headers={"Inference-Header-Content-Length": "9" * 5000})
@example(path=INFER, body=b"{}", headers={"Inference-Header-Content-Length": "-1"})
@example(path=INFER, body=TENSOR % (b"1", b"[%s]" % (b"9" * 400)), headers={})
@example(path=INFER, body=TENSOR % (b"1", b"[%s]" % (b"9" * 400)), headers={})
@example(path=INFER, body=TENSOR % (b"0, 99999999999", b"[]"), headers={})
@example(path=INFER, body=TENSOR % (b"1, 0", b"[]"), headers={})
@example(path=INFER, body=TENSOR % (b"1", b"[" * 5000 + b"]" * 5000), headers={})
def test_bodies(target: Target, path: str, body: bytes, headers: dict[str, str]) -> None:
    target.check(path, body, headers)


@fuzzed
@given(path=st.sampled_from([INVOKE, INFER]), body=packed, headers=extras)
@example(path=INVOKE, body=gzip.compress(b" " * (LIMIT + 1)), headers={})
@example(path=INVOKE, body=gzip.compress(b"{"), headers={})
@example(path=INVOKE, body=gzip.compress(b"{}")[:10], headers={})
def test_compressed_bodies(target: Target, path: str, body: bytes, headers: dict[str, str]) -> None:
    target.check(path, body, {**headers, "Content-Encoding": "gzip"})


@fuzzed
@given(
    kind=st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", "FP16", "UINT8", "FP32"]),
    shape=st.lists(st.integers(0, 4), max_size=3),
    data=st.binary(max_size=70)
    | st.lists(st.binary(max_size=9), max_size=4).map(
        lambda parts: b"".join(struct.pack("<I", len(part)) + part for part in parts)
    ),
    announced=st.integers(-4, 4),
)
def test_binary_tensors(target: Target, kind: str, shape: list[int], data: bytes, announced: int) -> None:
    size = {"binary_data_size": max(0, len(data) + announced)}
    tensor = {"name": "x", "shape": shape, "datatype": kind, "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    target.check(INFER, head + data, {"Inference-Header-Content-Length": str(len(head))})


@settings(fuzzed, max_examples=60)
@given(
    data=st.one_of(
        st.binary(min_size=1, max_size=200),
        st.tuples(st.binary(max_size=30), st.sampled_from([b"\r\n\r\n", b" HTTP/1.1\r\n\r\n"])).map(b"".join),
        st.tuples(
            st.just(b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\n"),
            st.sampled_from(
                [b"Content-Length: ", b"Transfer-Encoding: chunked\r\n\r\n", b"Transfer-Encoding: ", b"Content-"]
            ),
            st.binary(max_size=60),
            st.just(b"\r\n\r\n"),
        ).map(b"".join),
    )
)
@example(data=b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n")
@example(data=b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n")
@example(data=b"POST /api/model/invoke HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
@example(data=b"GET /%00%ff HTTP/1.1\r\nHost: x\r\n\r\n")
def test_malformed_http_gets_an_error_response(target: Target, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", target.service.port), timeout=30) as raw:
        raw.sendall(data)
        with suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            while chunk := raw.recv(65536):
                received += chunk
    # 501 is what RFC 9112 (6.1) wants for a transfer coding that is unknown.
    allowed = (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.0 2", b"HTTP/1.0 4", b"HTTP/1.1 501")
    assert not received or received.startswith(allowed), received
    target.check(INVOKE, b'{"data": [[1, 2]]}', {})
