"""docker-rest: an image that serves predictions over HTTP."""

from __future__ import annotations

from typing import cast

from pydantic import Field, StrictInt, StrictStr

from packager.applications.common import Application, Command, ImageArguments

# Any uid may run the image; this one is used where nobody chose: not root, and in the root group as OpenShift's are.
USER = "10001:0"


class RestArguments(ImageArguments):
    """The arguments of docker-rest."""

    port: StrictInt = Field(default=5000, ge=1, le=65535, description="Port to bind")
    timeout: StrictInt = Field(default=60, ge=1, le=86400, description="Serving timeout in seconds.")
    workers: StrictInt = Field(default=1, ge=1, le=1024, description="Count of serving workers")
    threads: StrictInt = Field(default=4, ge=1, le=1024, description="Count of serving threads")
    host: StrictStr = Field(default="0.0.0.0", description="Host to bind", pattern=r"^[A-Za-z0-9.:_-]+$")  # noqa: S104
    batch_max_size: StrictInt = Field(
        default=1,
        ge=1,
        le=100_000,
        description="Rows that concurrent requests may share in one call of a matrix model; 1: each has its own call",
    )
    batch_max_latency_ms: StrictInt = Field(
        default=0, ge=0, le=60_000, description="Milliseconds that a request waits for others to share a call with"
    )


def command(arguments: ImageArguments) -> Command:
    """Return how a REST image is started."""
    rest = cast("RestArguments", arguments)
    names = ("host", "port", "workers", "threads", "timeout")
    options = tuple(word for name in names for word in (f"--{name}", str(getattr(rest, name))))
    if rest.batch_max_size > 1:
        options += ("--batch-max-size", str(rest.batch_max_size))
        options += ("--batch-max-latency-ms", str(rest.batch_max_latency_ms))
    return Command(words=("rest",), options=options, port=rest.port, user=USER)


APPLICATION = Application(
    name="docker-rest", entry_point="odahu-flow-pack-to-rest", arguments=RestArguments, command=command
)
