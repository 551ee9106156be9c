"""`/configuration` and `/user/info`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from packager import __version__
from packager.api.entities import ApiModel
from packager.api.routes.common import PREFIX, READS, caller_of, service_of
from packager.kube.job_settings import JobSettings

router = APIRouter(prefix=PREFIX, tags=["About"])


class CommonConfiguration(ApiModel):
    """Of the service as a whole."""

    version: str
    resource_gpu_name: str


class PackagingConfiguration(ApiModel):
    """Of packagings."""

    enabled: bool = True
    model_packager_image: str
    output_connection_id: str = Field(serialization_alias="outputConnectionID")


class Configuration(ApiModel):
    """What clients may want to know of the server's settings; nothing of it is secret."""

    common: CommonConfiguration
    packaging: PackagingConfiguration


class UserInfo(BaseModel):
    """Who asks."""

    username: str
    email: str


@router.get("/configuration", responses=READS)
def get_configuration(request: Request) -> Configuration:
    """Return the configuration."""
    settings = service_of(request).settings
    return Configuration(
        common=CommonConfiguration(version=__version__, resource_gpu_name=JobSettings().gpu_resource),
        packaging=PackagingConfiguration(
            model_packager_image=settings.packager_image, output_connection_id=settings.output_connection
        ),
    )


@router.get("/user/info", responses=READS)
def get_user_info(request: Request) -> UserInfo:
    """Return who asks."""
    caller = caller_of(request)
    return UserInfo(username=caller.username, email=caller.email)
