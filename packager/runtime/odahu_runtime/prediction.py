"""The routes that predict, in steps: read the rows, call the model, write the response.

Each step returns the input of the next one, or a reply where it failed. Errors of the request and of the model never
escape a step: they become replies.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from . import codecs, oip, outputs, responses
from .http import Reply, Request, header_text, json_reply
from .inputs import InputError
from .model import ModelError

if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple, Union

    from .inputs import Batch
    from .metrics import Metrics
    from .model import Model
    from .request_validation import RequestValidator

    Note = Dict[str, Any]  # parts of a request that its response repeats
    Result = Tuple[Any, List[Any]]  # the model's return value, and the names of its columns

_DIGITS = 20  # of a length; Python rejects numbers of thousands of digits


class ModelIdentity(NamedTuple):
    """Name and version of the model, from the environment."""

    name: str
    version: str


class PredictionContext(NamedTuple):
    """The objects that predictions need."""

    identity: ModelIdentity
    model: Model
    validator: RequestValidator
    metrics: Metrics
    log_error: Callable[[str], None]

    def failed(self, key: str, request: Request, fault: Exception) -> Reply:
        """Return the reply to an error, an object with the text under `key`; log it unless the request is invalid."""
        if isinstance(fault, InputError):
            return json_reply(fault.status, outputs.dumps({key: str(fault)}))
        if isinstance(fault, ModelError):
            self.log_error(f"{request.method} {request.path!r}: {fault.details}")
            return json_reply(500, outputs.dumps({key: str(fault)}))
        lines = traceback.format_exception(type(fault), fault, fault.__traceback__, chain=False)  # a bug of the runtime
        self.log_error(f"{request.method} {request.path!r}: {''.join(lines).rstrip()}")
        return json_reply(500, outputs.dumps({key: f"{type(fault).__name__}: {fault}"}))


class Job(NamedTuple):
    """The work for a request that needs the model, and the body if it reads one.

    Attributes:
        reads_body: Whether the body has to be read.
        run: Does all of it.
        batchable: The prediction, where it may share a call of the model with others.
    """

    reads_body: bool
    run: Callable[[Request, bytes], Reply]
    batchable: Optional[Prediction] = None


class ParsedRequest(NamedTuple):
    """A request whose rows have been read."""

    prediction: Prediction
    request: Request
    batch: Batch
    note: Note


class Prediction:
    """The steps of a route. Every thread may run each of them."""

    error = "message"  # the key of the text in an error response

    def __init__(self, context: PredictionContext) -> None:
        """Predict with the objects of `context`."""
        self._context = context
        self._model, self._validator, self._metrics = context.model, context.validator, context.metrics
        self._names = [
            ("Model-Name", header_text(context.identity.name)),
            ("Model-Version", header_text(context.identity.version)),
        ]

    def job(self, *, shares: bool) -> Job:
        """Return the job of a request, which may share a call of the model with others if it `shares`."""
        return Job(reads_body=True, run=self.run, batchable=self if shares else None)

    def run(self, request: Request, body: bytes) -> Reply:
        """Run all the steps."""
        part = self.read(request, body)
        return part if isinstance(part, Reply) else self.complete(part)

    def complete(self, part: ParsedRequest) -> Reply:
        """Run the steps after the rows have been read."""
        result = self.predict(part)
        return result if isinstance(result, Reply) else self.finish(part, result)

    def read(self, request: Request, body: bytes) -> Union[ParsedRequest, Reply]:
        """Read the rows of a body."""
        try:
            batch, note = self._read(request, codecs.plain_body(request, body, self._validator.limits.max_body))
            batch = self._validator.validate(batch)
        except Exception as fault:  # noqa: BLE001  (every error becomes a reply)
            return self._failed(request, fault)
        self._metrics.asked(len(batch.data))
        return ParsedRequest(self, request, batch, note)

    def predict(self, part: ParsedRequest) -> Union[Result, Reply]:
        """Call the model."""
        try:
            self._metrics.called(len(part.batch.data))
            return self._model.predict_raw(part.batch)
        except Exception as fault:  # noqa: BLE001
            return self._failed(part.request, fault)

    def finish(self, part: ParsedRequest, result: Result) -> Reply:
        """Write the response."""
        try:
            return codecs.packed(part.request, self._finish(part.request, part.note, *result))
        except Exception as fault:  # noqa: BLE001
            return self._failed(part.request, fault)

    def headers(self, request: Request) -> List[Tuple[str, str]]:
        """Return the headers that name the model, and the request if it has an ID."""
        request_id = request.header("request-id") or request.header("x-request-id")
        return [*self._names, ("Request-Id", header_text(request_id))] if request_id else self._names

    def _failed(self, request: Request, fault: Exception) -> Reply:
        return self._context.failed(self.error, request, fault)

    def _read(self, request: Request, body: bytes) -> Tuple[Batch, Note]:
        raise NotImplementedError

    def _finish(self, request: Request, note: Note, prediction: Any, columns: List[Any]) -> Reply:
        raise NotImplementedError


class Invoke(Prediction):
    """`/api/model/invoke`: rows in JSON, CSV or Arrow, and predictions in any of these."""

    def _read(self, request: Request, body: bytes) -> Tuple[Batch, Note]:
        note = {"form": responses.form(request.header("accept"))}
        return codecs.read_rows(request, body, self._validator), note

    def _finish(self, request: Request, note: Note, prediction: Any, columns: List[Any]) -> Reply:
        return responses.reply(note["form"], self._model, prediction, columns, self.headers(request))


class Infer(Prediction):
    """`/v2/models/{name}/infer` of the Open Inference Protocol."""

    error = "error"

    def __init__(self, context: PredictionContext) -> None:
        """Predict with the objects of `context`."""
        super().__init__(context)
        self._columns = context.validator.schema_validator.names

    def _read(self, request: Request, body: bytes) -> Tuple[Batch, Note]:
        length = request.header("inference-header-content-length")
        if length is not None and not (length.isdecimal() and len(length) < _DIGITS and int(length) <= len(body)):
            raise InputError(
                f"Inference-Header-Content-Length is {length[:_DIGITS]}, and the body has {len(body)} bytes"
            )
        text = body if length is None else body[: int(length)]
        document = codecs.document_of(text)
        batch = oip.read(document, body[len(text) :], self._columns)
        head = {"id": document["id"]} if isinstance(document.get("id"), str) else {}
        return batch, {"head": head, "outputs": oip.wanted_outputs(document)}

    def _finish(self, request: Request, note: Note, prediction: Any, columns: List[Any]) -> Reply:
        identity = self._context.identity
        answer = {"model_name": identity.name, "model_version": identity.version, **note["head"]}
        tensors = oip.write(*self._model.values(prediction, columns))
        answer["outputs"] = oip.chosen(tensors, note["outputs"])
        return json_reply(200, outputs.encoded(answer), self.headers(request))
