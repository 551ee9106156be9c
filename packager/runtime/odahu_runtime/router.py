"""The HTTP routes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import batching, codecs, oip, openapi, outputs, schema
from .http import Reply, error_reply, json_reply, text_reply
from .metrics import Metrics
from .prediction import Infer, Invoke, Job, ModelIdentity, PredictionContext
from .request_validation import RequestLimits, RequestValidator

if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional, Tuple, Union

    from .http import Request
    from .model import Model

    Handler = Callable[[Request], Reply]


class Router:
    """The HTTP routes of one model. Errors of requests and of the model become replies.

    Attributes:
        closing: Whether the process is about to end and is no longer ready for requests.
        metrics: The counters of this worker.
    """

    def __init__(
        self,
        model: Model,
        environ: Dict[str, str],
        log_error: Callable[[str], None],
        metrics: Optional[Metrics] = None,
        batches: batching.BatchLimits = batching.BatchLimits(),  # noqa: B008  (immutable)
    ) -> None:
        """Serve `model` with the name, the version and the limits in `environ`.

        Raises:
            ValueError: A limit is not a number.
        """
        self._model = model
        self._identity = ModelIdentity(
            environ.get("ODAHU_MODEL_NAME", "model"),
            environ.get("ODAHU_MODEL_VERSION", "unknown"),
        )
        self.closing = False
        self._batches = batches
        self.metrics = metrics or Metrics.alone()
        validator = RequestValidator.of_model(model, RequestLimits.from_env(environ), log_error)
        self._context = PredictionContext(self._identity, model, validator, self.metrics, log_error)
        self._invoke = Invoke(self._context)
        base = f"/v2/models/{self._identity.name}"
        versioned = f"{base}/versions/{self._identity.version}"
        info, metadata, document = self._info(), self._model_metadata(), self._openapi()
        shares = batches.rows > 1 and model.mode == "matrix"
        invoke, infer = (each.job(shares=shares) for each in (self._invoke, Infer(self._context)))
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
        """The maximum size of a body in bytes."""
        return self._context.validator.limits.max_body

    def begin(self, request: Request) -> Union[Reply, Job]:
        """Reply to a request that needs neither its body nor the model; else return the job that is left."""
        path, method = request.path, request.method
        allowed, handle = self._routes.get(path, ("", None))
        if handle is None:
            return error_reply(404, f"Unknown path {path}; known paths: {', '.join(self._routes)}")
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            methods = ("GET", "HEAD") if allowed == "GET" else (allowed,)
            message = f"{method} is not allowed for {path}, only {' and '.join(methods)}"
            return error_reply(405, message, ("Allow", ", ".join(methods)))
        return handle if isinstance(handle, Job) else handle(request)

    def _health(self, _request: Request) -> Reply:
        return json_reply(200, outputs.dumps({"status": True}))

    def _metrics(self, _request: Request) -> Reply:
        text = self.metrics.text(self._identity.name, self._identity.version)
        return text_reply(200, text, "text/plain; version=0.0.4; charset=utf-8")

    def _docs(self, _request: Request) -> Reply:
        return text_reply(200, openapi.page(), "text/html; charset=utf-8")

    def _server(self, _request: Request) -> Reply:
        document = {"name": "odahu-runtime", "version": self._identity.version, "extensions": ["binary_tensor_data"]}
        return json_reply(200, outputs.dumps(document))

    def _live(self, _request: Request) -> Reply:
        return json_reply(200, outputs.dumps({"live": True}))

    def _ready(self, _request: Request) -> Reply:
        """The model is loaded before the first request, so only the end of the process makes it unready."""
        return json_reply(503 if self.closing else 200, outputs.dumps({"ready": not self.closing}))

    def _model_ready(self, _request: Request) -> Reply:
        document = {"name": self._identity.name, "ready": not self.closing}
        return json_reply(503 if self.closing else 200, outputs.dumps(document))

    def _info(self) -> Job:
        def run(request: Request) -> Reply:
            document = schema.swagger(self._identity.name, self._identity.version, *self._model.schemas())
            return json_reply(200, outputs.dumps(document), self._invoke.headers(request))

        return self._job(run)

    def _openapi(self) -> Job:
        def run(_: Request) -> Reply:
            identity, model = self._identity, self._model
            document = openapi.openapi(identity.name, identity.version, model.schemas(), model.columns())
            return json_reply(200, outputs.dumps(document))

        return self._job(run)

    def _model_metadata(self) -> Job:
        def run(_: Request) -> Reply:
            identity = self._identity
            return json_reply(200, outputs.dumps(oip.metadata(identity.name, identity.version, *self._model.columns())))

        return self._job(run, error="error")

    def _job(self, run: Callable[[Request], Reply], error: str = "message") -> Job:
        """Return a job that needs the model but no rows; its errors become replies, as those of a prediction do."""

        def guarded(request: Request, _: bytes) -> Reply:
            try:
                return codecs.packed(request, run(request))
            except Exception as fault:  # noqa: BLE001  (every error becomes a reply)
                return self._context.failed(error, request, fault)

        return Job(reads_body=False, run=guarded)

    def predict_batch(self, requests: List[Tuple[Request, Job, bytes]]) -> List[Reply]:
        """Answer several requests with as few calls of the model as possible."""
        return batching.predict_batch(requests, self._model, self._batches, self.metrics)
