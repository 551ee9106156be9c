"""Request and response bodies: compression, character encoding, and the formats of rows."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from typing import TYPE_CHECKING

from . import arrow, csv_values, fast_json, inputs
from .http import NO_BODY, TOO_LARGE
from .inputs import Batch, InputError
from .responses import CSV, JSON

if TYPE_CHECKING:
    from typing import Any, List, Optional

    from .csv_values import Reader
    from .http import Reply, Request
    from .request_validation import RequestValidator

_WORTH_IT = 1024  # bytes; compression makes a smaller response slower and hardly smaller
_LONGEST_CELL = 1 << 30  # characters; the body has its own limit, and Python's is too low for an encoded image


def plain_body(request: Request, body: bytes, limit: int) -> bytes:
    """Return the body without its `Content-Encoding`.

    Raises:
        InputError: It is not valid gzip, or unpacks to more than `limit` bytes.
    """
    encoding = request.header("content-encoding")
    if encoding is not None:
        encoding = encoding.strip().lower()
    if encoding in (None, "", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise InputError(f"The body is compressed ({encoding}); send it uncompressed or with gzip", 415)
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
    except EOFError as error:
        raise InputError("The body is not gzip: it ends too early") from error
    except (OSError, zlib.error) as error:
        raise InputError(f"The body is not gzip: {error}") from error
    if len(unpacked) > limit:
        raise InputError(TOO_LARGE.format(limit), 413)
    return unpacked


def packed(request: Request, reply: Reply) -> Reply:
    """Return the response, compressed where the client accepts that and it pays off."""
    accepted = request.header("accept-encoding")
    if accepted is None or len(reply.body) < _WORTH_IT or not _takes_gzip(accepted):
        return reply
    body = gzip.compress(reply.body, 1)
    headers = [header for header in reply.headers if header[0] != "Content-Length"]
    headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"), ("Content-Length", str(len(body)))]
    return reply._replace(headers=headers, body=body)


def read_rows(request: Request, body: bytes, validator: RequestValidator) -> Batch:
    """Read the rows of a body: Arrow or CSV with a header, by its content type, else JSON.

    Raises:
        InputError: It is invalid; says where.
    """
    kind = request.header("content-type") or JSON
    if kind != JSON:
        kind = kind.partition(";")[0].strip().lower()
    if kind in (arrow.STREAM, arrow.FILE):
        return arrow.read(body, validator)
    if kind == CSV:
        return _read_csv(_text_of(body), validator)
    try:
        document = fast_json.loads(body)
    except fast_json.Refused:
        document = inputs.parse_strict(_text_of(body))
    rows, columns, _ = inputs.read_batch(document)
    if inputs.are_numbers(rows):
        return Batch(rows, columns, True)  # noqa: FBT003  (a keyword takes longer)
    inputs.check_integers(body)
    return Batch(rows, columns)


def document_of(body: bytes) -> Any:
    """Read a JSON body.

    Raises:
        InputError: It is invalid; says where.
    """
    try:
        document = fast_json.loads(body)
    except fast_json.Refused:
        return inputs.parse_strict(_text_of(body))
    inputs.check_integers(body)
    return document


def _text_of(body: bytes) -> str:
    """Decode a body.

    Raises:
        InputError: It isn't UTF-8, or empty.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"The body is not UTF-8: {error.reason} at byte {error.start}") from error
    if text.startswith("\ufeff"):  # noqa: FURB188  (`removeprefix` is newer than 3.8)
        text = text[1:]
    if not text or text.isspace():
        raise InputError(NO_BODY)
    return text


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, quality = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _read_csv(text: str, validator: RequestValidator) -> Batch:
    csv.field_size_limit(_LONGEST_CELL)  # the model may have set another
    reader = csv.reader(io.StringIO(text), strict=True)
    columns: Optional[Any] = None
    readers: List[Reader] = []
    data: List[Any] = []
    try:
        for line in reader:
            if not line:
                continue
            if columns is None:
                columns = line
                readers = csv_values.readers(columns, validator.schema_validator.names)
            elif len(line) != len(columns):
                raise InputError(
                    f"CSV line {reader.line_num} has {len(line)} cells, and there are {len(columns)} columns", 422
                )
            else:
                validator.check_row_count(len(data) + 1)
                data.append(_row(line, readers))
    except csv.Error as error:
        raise InputError(f"Invalid CSV: {error}: line {reader.line_num}") from error
    if columns is None or not data:
        raise InputError("The CSV has no rows: the first line has the names of the columns")
    return Batch(data, columns)


def _row(line: List[str], readers: List[Reader]) -> List[Any]:
    try:
        return [read(cell) for read, cell in zip(readers, line)]  # noqa: B905  (of one length)
    except csv_values.CellError:
        return [_value(read, cell) for read, cell in zip(readers, line)]  # noqa: B905


def _value(read: Reader, cell: str) -> Any:
    """Read a value; one of another type than its column's by its look, so that the validation says where it is."""
    try:
        return read(cell)
    except csv_values.CellError:
        return csv_values.mismatch(cell)
