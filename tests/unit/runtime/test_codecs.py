from __future__ import annotations

import gzip
import json

import pytest

from packager.runtime.odahu_runtime import arrow, codecs
from packager.runtime.odahu_runtime.http import Request, text_reply
from packager.runtime.odahu_runtime.inputs import Batch, InputError
from packager.runtime.odahu_runtime.request_validation import RequestLimits, RequestValidator
from packager.runtime.odahu_runtime.schema_validation import SchemaValidator
from tests.unit.runtime.test_wsgi import INVOKE, Client, add_up, make_model

ANY = RequestValidator(RequestLimits(), (), SchemaValidator(()))
PACKED = gzip.compress(b'{"data": [[1, 2]]}', mtime=0)


def request(**headers: str) -> Request:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", INVOKE, "-", given.get)


@pytest.fixture
def client() -> Client:
    return Client(make_model(predict_on_matrix=add_up))


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (PACKED, "gzip", 200, None),
        (b'{"data": [[1, 2]]}', "identity", 200, None),
        (b"{}", "gzip", 400, "not gzip"),
        (PACKED[:-4], "gzip", 400, "ends too early"),
        (gzip.compress(b" " * 101, mtime=0), "gzip", 413, "larger than 100 bytes"),
        (gzip.compress(b'{"data": ', mtime=0) + gzip.compress(b"[[1, 2]]}", mtime=0) + b"\0\0", "gzip", 200, None),
        (PACKED[:-8] + bytes(8), "gzip", 400, "CRC check failed"),
        (PACKED, "zstd", 415, "compressed (zstd)"),
    ],
)
def test_compressed_bodies(client: Client, body: bytes, encoding: str, status: int, said: str | None) -> None:
    answer = client.ask("POST", INVOKE, body, HTTP_CONTENT_ENCODING=encoding)
    assert answer.status == status
    assert said is None or said in answer.json["message"]


@pytest.mark.parametrize(
    ("accepted", "size", "packed"),
    [
        ("gzip, deflate", 2000, True),
        ("*", 2000, True),
        ("gzip;q=0.5", 2000, True),
        ("gzip;q=0, deflate", 2000, False),
        ("br", 2000, False),
        ("gzip", 100, False),
    ],
)
def test_compressed_answers(accepted: str, size: int, packed: bool) -> None:
    reply = codecs.packed(request(accept_encoding=accepted), text_reply(200, "x" * size, "text/plain"))
    headers = dict(reply.headers)
    assert ("Content-Encoding" in headers) == packed
    assert int(headers["Content-Length"]) == len(reply.body)
    assert (gzip.decompress(reply.body) if packed else reply.body) == b"x" * size


@pytest.mark.parametrize(
    ("text", "batch"),
    [
        ("a,b\n1,2.5\n-3,1e3\n", Batch([[1, 2.5], [-3, 1000.0]], ["a", "b"])),
        ('\ufeffa\r\n"x, y"\r\n\r\nnan\r\n', Batch([["x, y"], [None]], ["a"])),
        (f"a\n{'x' * 200_000}\n", Batch([["x" * 200_000]], ["a"])),
        ("a,b,c\ntrue,,1_000\n", Batch([[True, None, "1_000"]], ["a", "b", "c"])),
    ],
)
def test_csv(text: str, batch: Batch) -> None:
    assert codecs.read_rows(request(content_type="text/csv; charset=utf-8"), text.encode(), ANY) == batch


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3\n", "CSV line 3 has 1 cells, and there are 2 columns"),
        ('a\n"1\n', "Invalid CSV"),
    ],
)
def test_invalid_csv_is_an_error(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        codecs.read_rows(request(content_type="text/csv"), text.encode(), ANY)


def test_openapi_describes_every_route(client: Client) -> None:
    document = client.ask("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method in methods:
            assert path == "/metrics" or client.ask(method.upper(), path, b"{}").status != 404, path
    invoke = document["paths"][INVOKE]["post"]
    forms = {"application/json", "text/csv", arrow.STREAM, arrow.FILE}
    assert set(invoke["requestBody"]["content"]) == set(invoke["responses"]["200"]["content"]) == forms
    assert {"400", "406", "413", "415", "422"} < set(invoke["responses"])
    page = client.raw("GET", "/docs")
    assert b"openapi.json" in page
    assert b"http" not in page.replace(b'lang="en"', b"").lower()
    assert json.dumps(document).count('"operationId"') == len(document["paths"])
