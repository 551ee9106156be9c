"""The REST surface of a model: which paths there are, and what each answers."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, NamedTuple

from . import answers, batching, coding, documents, inputs, oip, outputs, schema
from .batching import Part
from .inputs import Batch, InputError
from .intake import Intake
from .limits import Limits, max_body_bytes
from .messages import Job, Reply, error_reply, header_text, json_reply, text_reply
from .metrics import Metrics
from .model import ModelError

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple, Union

    from .messages import Request
    from .model import Model

    Handler = Callable[[Request], Union[Reply, Job]]

__all__ = ["Surface", "max_body_bytes"]

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
        self._routes: Dict[str, Tuple[str, Handler]] = {
            "/api/model/invoke": ("POST", self._invoke),
            "/api/model/info": ("GET", self._info),
            "/healthcheck": ("GET", self._health),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
            "/metrics": ("GET", self._metrics),
            "/v2": ("GET", self._server),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
        }
        for place in (base, versioned):
            self._routes[place] = ("GET", self._model_metadata)
            self._routes[f"{place}/ready"] = ("GET", self._model_ready)
            self._routes[f"{place}/infer"] = ("POST", self._infer)
        names = {
            self._invoke: "invoke",
            self._infer: "infer",
            self._info: "info",
            self._model_metadata: "metadata",
            self._server: "metadata",
            self._openapi: "documents",
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
        return handle(request)

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

    def _info(self, request: Request) -> Job:
        def run(_: bytes) -> Reply:
            document = schema.swagger(self._service.name, self._service.version, *self._model.schemas())
            return json_reply(200, outputs.dumps(document), self._headers(request))

        return self._job(request, run, reads=False)

    def _openapi(self, request: Request) -> Job:
        def run(_: bytes) -> Reply:
            service, model = self._service, self._model
            document = documents.openapi(service.name, service.version, model.schemas(), model.columns())
            return json_reply(200, outputs.dumps(document))

        return self._job(request, run, reads=False)

    def _model_metadata(self, request: Request) -> Job:
        def run(_: bytes) -> Reply:
            service = self._service
            return json_reply(200, outputs.dumps(oip.metadata(service.name, service.version, *self._model.columns())))

        return self._job(request, run, reads=False, error="error")

    def _invoke(self, request: Request) -> Job:
        chosen: Dict[str, str] = {}

        def read(body: bytes) -> Batch:
            chosen["form"] = answers.form(request.header("accept"))
            plain = coding.plain_body(request, body, self.max_body)
            return self._intake.take(coding.read_rows(request, plain, self._intake))

        def finish(prediction: Any, columns: List[Any]) -> Reply:
            return answers.reply(chosen["form"], self._model, prediction, columns, self._headers(request))

        return self._prediction(request, read, finish, "message")

    def _infer(self, request: Request) -> Job:
        seen: Dict[str, Any] = {}

        def read(body: bytes) -> Batch:
            body = coding.plain_body(request, body, self.max_body)
            length = request.header("inference-header-content-length")
            if length is not None and not (length.isdecimal() and len(length) < _DIGITS and int(length) <= len(body)):
                raise InputError(
                    f"Inference-Header-Content-Length is {length[:_DIGITS]}, and the body has {len(body)} bytes"
                )
            head = body if length is None else body[: int(length)]
            document = inputs.parse_strict(coding.text_of(head))
            batch = oip.read(document, body[len(head) :], [column.name for column in self._intake.columns])
            if isinstance(document.get("id"), str):
                seen["id"] = document["id"]
            return self._intake.take(batch)

        def finish(prediction: Any, columns: List[Any]) -> Reply:
            service = self._service
            answer = {"model_name": service.name, "model_version": service.version, **seen}
            answer["outputs"] = oip.write(*self._model.values(prediction, columns))
            return json_reply(200, outputs.dumps(answer), self._headers(request))

        return self._prediction(request, read, finish, "error")

    def _prediction(
        self, request: Request, read: Callable[[bytes], Batch], finish: Callable[[Any, List[Any]], Reply], error: str
    ) -> Job:
        """A job that reads rows and predicts: alone, or as a part of a batch."""

        def predict(batch: Batch) -> Reply:
            self.metrics.called(len(batch.data))
            return finish(*self._model.predict_raw(batch))

        def run(body: bytes) -> Reply:
            batch = read(body)
            self.metrics.asked(len(batch.data))
            return predict(batch)

        def join(body: bytes) -> Union[Reply, Part]:
            def part(_: bytes) -> Part:
                batch = read(body)
                self.metrics.asked(len(batch.data))
                return Part(
                    batch,
                    lambda *shares: guarded(b"", lambda _: finish(*shares)),
                    lambda: guarded(b"", lambda _: predict(batch)),
                )

            made: Union[Reply, Part] = guarded(body, part)
            return made

        def guarded(body: bytes, step: Callable[[bytes], Any]) -> Any:
            return self._guarded(request, error, body, step)

        may_join = self._batches.rows > 1 and self._model.mode == "matrix"
        return Job(True, lambda body: guarded(body, run), join if may_join else None)  # noqa: FBT003

    def _job(self, request: Request, run: Callable[[bytes], Reply], *, reads: bool, error: str = "message") -> Job:
        return Job(reads, lambda body: self._guarded(request, error, body, run))

    def _guarded(self, request: Request, key: str, body: bytes, step: Callable[[bytes], Any]) -> Any:
        """What `step` gives; its failures are answers: an object with the text under `key`."""
        try:
            made = step(body)
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
