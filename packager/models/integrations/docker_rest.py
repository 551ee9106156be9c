"""docker-rest: images that serve predictions over HTTP."""

from __future__ import annotations

from typing import cast

from pydantic import Field, StrictBool, StrictInt, StrictStr

from packager.models.integrations.base import Command, ImageArguments, IntegrationType

# Variables that the runtime reads, so that a deployment can change them without a new image.
_VARIABLES = {
    "max_body_bytes": "ODAHU_MAX_BODY_BYTES",
    "max_rows": "ODAHU_MAX_ROWS",
    "check_input": "ODAHU_CHECK_INPUT",
}
# The default user of images, which run with any uid: not root, but in the root group, as on OpenShift.
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
        description="Maximum rows of concurrent requests in one call of a matrix model; 1 disables batching",
    )
    batch_max_latency_ms: StrictInt = Field(
        default=0,
        ge=0,
        le=60_000,
        description="Maximum time that a request waits for others to share a call, in milliseconds",
    )
    max_body_bytes: StrictInt = Field(
        default=64 * 1024 * 1024,
        ge=1,
        le=2**40,
        description="Maximum size of a request body in bytes, compressed or not; ODAHU_MAX_BODY_BYTES in the image",
    )
    max_rows: StrictInt = Field(
        default=1_000_000, ge=1, le=2**31 - 1, description="Maximum rows of a request; ODAHU_MAX_ROWS in the image"
    )
    check_input: StrictBool = Field(
        default=True,
        description="Reject rows that don't match the schema of the model's info(); ODAHU_CHECK_INPUT in the image",
    )


def command(arguments: ImageArguments) -> Command:
    """Return the command of a REST image."""
    rest = cast("RestArguments", arguments)
    names = ("host", "port", "workers", "threads", "timeout")
    options = tuple(word for name in names for word in (f"--{name}", str(getattr(rest, name))))
    if rest.batch_max_size > 1:
        options += ("--batch-max-size", str(rest.batch_max_size))
        options += ("--batch-max-latency-ms", str(rest.batch_max_latency_ms))
    fields = RestArguments.model_fields
    variables = tuple(
        (variable, str(getattr(rest, name)).lower())
        for name, variable in _VARIABLES.items()
        if getattr(rest, name) != fields[name].default
    )
    return Command(args=("rest",), options=options, variables=variables, port=rest.port, user=USER)


INTEGRATION_TYPE = IntegrationType(
    name="docker-rest", entry_point="odahu-flow-pack-to-rest", arguments=RestArguments, command=command
)
