"""Short ways to the values that many tests need."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from packager.image.plan import BaseImage, Content
from packager.image.planner import Dependencies, PlanInputs
from packager.models.manifest import ArtifactManifest
from packager.models.packaging import PackagingManifest
from packager.models.reference import Reference
from packager.request import Overrides, PackagingRequest, make_request

UUID = "ec1bf1cd-216d-4f0a-a62f-bf084c79c58c"
BASE_DIGEST = "sha256:" + "ab" * 32
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
REGISTRY = {"type": "docker", "uri": "gcr.io/project/odahuflow", "username": "ann", "password": "pass-word"}
WINE = ArtifactManifest.model_validate(
    {
        "binaries": {"type": "python", "dependencies": "conda", "conda_path": "wine/conda.yaml"},
        "model": {"name": "wine", "version": "1.0", "workDir": "wine", "entrypoint": "entrypoint"},
    }
)


def packaging(
    arguments: dict[str, Any] | None = None,
    *,
    integration: str = "docker-rest",
    targets: dict[str, dict[str, Any]] | None = None,
    entity: dict[str, Any] | None = None,
) -> PackagingManifest:
    """Make an `mp.json` with a docker-push target, unless `targets` says otherwise."""
    targets = {"docker-push": REGISTRY} if targets is None else targets
    return PackagingManifest.model_validate(
        {
            "modelPackaging": {"id": "wine", "spec": {"integrationName": integration, "arguments": arguments or {}}},
            "packagingIntegration": entity,
            "targets": [{"name": name, "connection": {"id": name, "spec": spec}} for name, spec in targets.items()],
        }
    )


def request(manifest: PackagingManifest | None = None, overrides: Overrides | None = None) -> PackagingRequest:
    """Make the request of a packaging of the wine model, with a known UUID."""
    return make_request(manifest or packaging(), WINE.model, overrides, uuid=UUID)


def base(**changes: Any) -> BaseImage:
    """Make a base image, python:3.6 with its digest unless told otherwise."""
    values = {"reference": Reference.parse("python:3.6"), "digest": BASE_DIGEST, "glibc": "2.31", "python": "3.6"}
    return BaseImage(**{**values, **changes})


def prepared(folder: Path = Path("work"), **changes: Any) -> PlanInputs:
    """Make what lies ready: an environment, a runtime of one file, the model."""
    prefix = PurePosixPath("/opt/conda/envs/wine")
    dependencies = Dependencies(
        python=f"{prefix}/bin/python", root=folder / "environment", prefix=prefix, lock="lock\n", lock_digest="sha256:1"
    )
    values: dict[str, Any] = {
        "model": folder / "artifact",
        "manifest": WINE,
        "dependencies": dependencies,
        "runtime": (Content(source=b"main\n", destination=PurePosixPath("/opt/odahu/runtime/__main__.py")),),
        "base": base(),
        "created": CREATED,
        "packager_version": "0.1.0",
    }
    return PlanInputs(**{**values, **changes})
