"""The REST surface of a model: which paths there are, and what each answers."""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from . import answers, batching, coding, documents, oip, outputs, schema
from .batching import Part
from .inputs import Batch, InputError
from .intake import Intake
from .limits import Limits
from .messages import Job, Reply, error_reply, header_text, json_reply, text_reply
from .metrics import Metrics
from .model import ModelError

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple, Union

    from .messages import Request
    from .model import Model

    Handler = Callable[[Request], Reply]
    Note = Dict[str, Any]  # what of a request its answer repeats

_DIGITS = 20  # of a length; Python refuses to read a number of thousands


class _Service(NamedTuple):
    """What the image tells about itself."""

    name: str
    version: str


class Surface:
    """The REST surface of one model. Nothing that a request or the model does gets out of it but as an answer.

    Attributes:
        closing: Whether the process is about to end, and wants no more requests.
        metrics: What is counted.
    """

    def __init__(
        self,
        model: Model,
        environ: Dict[str, str],
        log_error: Callable[[str], None],
        metrics: Optional[Metrics] = None,
        batches: batching.Limits = batching.Limits(),  # noqa: B008  (it can't change)
    ) -> None:
        """Serve `model` under the name, the version and the limits that `environ` gives.

        Raises:
            ValueError: A limit is not a number.
        """
        self._model = model
        self._log_error = log_error
        self._service = _Service(
            environ.get("ODAHU_MODEL_NAME", "model"),
            environ.get("ODAHU_MODEL_VERSION", "unknown"),
        )
        self._intake = Intake.of_model(model, Limits.from_env(environ), log_error)
        self._names = [
            ("Model-Name", header_text(self._service.name)),
            ("Model-Version", header_text(self._service.version)),
        ]
        self.closing = False
        self._batches = batches
        self.metrics = metrics or Metrics.alone()
        base = f"/v2/models/{self._service.name}"
        versioned = f"{base}/versions/{self._service.version}"
        # What is there for each is made once, and not for each request.
        info, metadata, infer, document = self._info(), self._model_metadata(), self._infer(), self._openapi()
        invoke = self._invoke()
        self._routes: Dict[str, Tuple[str, Union[Handler, Job]]] = {
            "/api/model/invoke": ("POST", invoke),
            "/api/model/info": ("GET", info),
            "/healthcheck": ("GET", self._health),
            "/openapi.json": ("GET", document),
            "/docs": ("GET", self._docs),
            "/metrics": ("GET", self._metrics),
            "/v2": ("GET", self._server),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
        }
        for place in (base, versioned):
            self._routes[place] = ("GET", metadata)
            self._routes[f"{place}/ready"] = ("GET", self._model_ready)
            self._routes[f"{place}/infer"] = ("POST", infer)
        names: Dict[Union[Handler, Job], str] = {
            invoke: "invoke",
            infer: "infer",
            info: "info",
            metadata: "metadata",
            self._server: "metadata",
            document: "documents",
            self._docs: "documents",
            self._metrics: "metrics",
        }
        self.metrics.name_routes({path: names.get(handle, "health") for path, (_, handle) in self._routes.items()})

    @property
    def max_body(self) -> int:
        """The largest body that is read, in bytes."""
        return self._intake.limits.max_body

    def begin(self, request: Request) -> Union[Reply, Job]:
        """Answer what needs neither the body nor the model; else say what is left to do."""
        path, method = request.path, request.method
        allowed, handle = self._routes.get(path, ("", None))
        if handle is None:
            return error_reply(404, f"There is no {path}; there are {', '.join(self._routes)}")
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            methods = ("GET", "HEAD") if allowed == "GET" else (allowed,)
            message = f"{method} is not allowed for {path}, only {' and '.join(methods)}"
            return error_reply(405, message, ("Allow", ", ".join(methods)))
        return handle if isinstance(handle, Job) else handle(request)

    def _health(self, _request: Request) -> Reply:
        return json_reply(200, outputs.dumps({"status": True}))

    def _metrics(self, _request: Request) -> Reply:
        text = self.metrics.text(self._service.name, self._service.version)
        return text_reply(200, text, "text/plain; version=0.0.4; charset=utf-8")

    def _docs(self, _request: Request) -> Reply:
        return text_reply(200, documents.page(), "text/html; charset=utf-8")

    def _server(self, _request: Request) -> Reply:
        document = {"name": "odahu-runtime", "version": self._service.version, "extensions": ["binary_tensor_data"]}
        return json_reply(200, outputs.dumps(document))

    def _live(self, _request: Request) -> Reply:
        return json_reply(200, outputs.dumps({"live": True}))

    def _ready(self, _request: Request) -> Reply:
        """The model was loaded before this process took its first request, so only its end makes a difference."""
        return json_reply(503 if self.closing else 200, outputs.dumps({"ready": not self.closing}))

    def _model_ready(self, _request: Request) -> Reply:
        document = {"name": self._service.name, "ready": not self.closing}
        return json_reply(503 if self.closing else 200, outputs.dumps(document))

    def _info(self) -> Job:
        def run(request: Request, _: bytes) -> Reply:
            document = schema.swagger(self._service.name, self._service.version, *self._model.schemas())
            return json_reply(200, outputs.dumps(document), self._headers(request))

        return self._job(run)

    def _openapi(self) -> Job:
        def run(_: Request, __: bytes) -> Reply:
            service, model = self._service, self._model
            document = documents.openapi(service.name, service.version, model.schemas(), model.columns())
            return json_reply(200, outputs.dumps(document))

        return self._job(run)

    def _model_metadata(self) -> Job:
        def run(_: Request, __: bytes) -> Reply:
            service = self._service
            return json_reply(200, outputs.dumps(oip.metadata(service.name, service.version, *self._model.columns())))

        return self._job(run, error="error")

    def _invoke(self) -> Job:
        def read(request: Request, body: bytes) -> Tuple[Batch, Note]:
            note = {"form": answers.form(request.header("accept"))}
            plain = coding.plain_body(request, body, self.max_body)
            return self._intake.take(coding.read_rows(request, plain, self._intake)), note

        def finish(request: Request, note: Note, prediction: Any, columns: List[Any]) -> Reply:
            return answers.reply(note["form"], self._model, prediction, columns, self._headers(request))

        return self._prediction(read, finish, "message")

    def _infer(self) -> Job:
        names = [column.name for column in self._intake.columns]

        def read(request: Request, body: bytes) -> Tuple[Batch, Note]:
            body = coding.plain_body(request, body, self.max_body)
            length = request.header("inference-header-content-length")
            if length is not None and not (length.isdecimal() and len(length) < _DIGITS and int(length) <= len(body)):
                raise InputError(
                    f"Inference-Header-Content-Length is {length[:_DIGITS]}, and the body has {len(body)} bytes"
                )
            text = body if length is None else body[: int(length)]
            document = coding.document_of(text)
            batch = oip.read(document, body[len(text) :], names)
            head = {"id": document["id"]} if isinstance(document.get("id"), str) else {}
            return self._intake.take(batch), {"head": head, "outputs": oip.wanted_outputs(document)}

        def finish(request: Request, note: Note, prediction: Any, columns: List[Any]) -> Reply:
            answer = {"model_name": self._service.name, "model_version": self._service.version, **note["head"]}
            tensors = oip.write(*self._model.values(prediction, columns))
            answer["outputs"] = oip.chosen(tensors, note["outputs"])
            return json_reply(200, outputs.dumps(answer), self._headers(request))

        return self._prediction(read, finish, "error")

    def _prediction(
        self,
        read: Callable[[Request, bytes], Tuple[Batch, Note]],
        finish: Callable[[Request, Note, Any, List[Any]], Reply],
        error: str,
    ) -> Job:
        """A job that reads rows and predicts: alone, or as a part of a batch. `finish` gets what `read` noted."""

        def predict(request: Request, batch: Batch, note: Note) -> Reply:
            self.metrics.called(len(batch.data))
            return finish(request, note, *self._model.predict_raw(batch))

        def run(request: Request, body: bytes) -> Reply:
            batch, note = read(request, body)
            self.metrics.predicted(len(batch.data))
            return finish(request, note, *self._model.predict_raw(batch))

        def join(request: Request, body: bytes) -> Part:
            batch, note = read(request, body)
            self.metrics.asked(len(batch.data))
            guarded = partial(self._guarded, error)
            return Part(
                batch,
                lambda *share: guarded(lambda *_: finish(request, note, *share), request, b""),
                lambda: guarded(lambda *_: predict(request, batch, note), request, b""),
            )

        may_join = self._batches.rows > 1 and self._model.mode == "matrix"
        return Job(
            True,  # noqa: FBT003
            partial(self._guarded, error, run),
            partial(self._guarded, error, join) if may_join else None,
        )

    def _job(self, run: Callable[[Request, bytes], Reply], error: str = "message") -> Job:
        return Job(False, partial(self._guarded, error, run))  # noqa: FBT003

    def _guarded(self, key: str, step: Callable[[Request, bytes], Any], request: Request, body: bytes) -> Any:
        """What `step` gives; its failures are answers: an object with the text under `key`."""
        try:
            made = step(request, body)
            return coding.packed(request, made) if isinstance(made, Reply) else made
        except InputError as wrong:
            return json_reply(wrong.status, outputs.dumps({key: str(wrong)}))
        except ModelError as failed:
            self._log_error(f"{request.method} {request.path!r}: {failed.details}")
            return json_reply(500, outputs.dumps({key: str(failed)}))
        except Exception as fault:  # noqa: BLE001  (one of ours: the thread that runs this must live on)
            self._log_error(f"{request.method} {request.path!r}: {traceback.format_exc().rstrip()}")
            return json_reply(500, outputs.dumps({key: f"{type(fault).__name__}: {fault}"}))

    def predict_together(self, parts: List[Part]) -> List[Reply]:
        """Answer several requests with as few calls of the model as can be."""
        return batching.answer(parts, self._model, self._batches, self.metrics)

    def _headers(self, request: Request) -> List[Tuple[str, str]]:
        request_id = request.header("request-id") or request.header("x-request-id")
        return [*self._names, ("Request-Id", header_text(request_id))] if request_id else self._names
