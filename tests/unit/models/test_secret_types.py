"""No value that holds a secret shows it when it is printed, formatted, or part of an error."""

from __future__ import annotations

import pytest

from packager.environment.channels import split_credential
from packager.environment.requirements import Requirements
from packager.models.connection import Connection
from packager.models.packaging import PackagingManifest
from packager.registry.credentials import docker_credential
from packager.registry.docker_config import DockerConfig
from packager.registry.keychain import Keychain, LoginContext
from packager.settings import Settings
from packager.sources.stores.location import parse_model

SECRET = "hunter2-s3cret"
_SPEC = dict.fromkeys(("password", "keyID", "keySecret", "publicKey"), SECRET)
_CONNECTION = Connection.model_validate(
    {"id": "c", "spec": {"type": "docker", "uri": "host/x", "username": "u", **_SPEC}}
)
_LOGIN = docker_credential(_CONNECTION)
_TOKEN = docker_credential(
    _CONNECTION.model_copy(update={"spec": _CONNECTION.spec.model_copy(update={"username": "<token>"})})
)
_USER = DockerConfig().with_logins([login for login in (_LOGIN, _TOKEN) if login])
_ADDRESS = f"https://u:{SECRET}@host/"
_HOLDERS = {
    "connection": _CONNECTION,
    "manifest": PackagingManifest.model_validate({"modelPackaging": {}, "modelHolder": _CONNECTION}),
    "login": _LOGIN,
    "token": _TOKEN,
    "docker config": _USER,
    "login context": LoginContext(user=_USER),
    "keychain": Keychain(user=_USER),
    "model": parse_model(f"https://host/model.zip?sig={SECRET}"),
    "channel": split_credential(_ADDRESS),
    "channel token": split_credential(f"https://host/t/{SECRET}/channel"),
    "requirements": Requirements(index_url=_ADDRESS, extra_index_urls=(_ADDRESS,), find_links=(_ADDRESS,)),
    "settings": Settings.from_env(
        {
            "PACKAGER_PIP_INDEX_URL": _ADDRESS,
            "PACKAGER_PIP_EXTRA_INDEX_URLS": _ADDRESS,
            "PACKAGER_PIP_FIND_LINKS": _ADDRESS,
            "PACKAGER_CONDA_CREDENTIALS": f"host=u:{SECRET}",
            "PACKAGER_CONDA_MIRRORS": f"conda-forge={_ADDRESS}",
        }
    ),
}


@pytest.mark.parametrize("name", _HOLDERS)
def test_a_value_that_holds_a_secret_does_not_show_it(name: str) -> None:
    held = _HOLDERS[name]
    assert held is not None
    for text in (repr(held), str(held), f"{held}", f"{[held]}", str(ValueError(held))):
        assert SECRET not in text
    if isinstance(held, Connection | PackagingManifest | Settings):
        assert SECRET not in held.model_dump_json()
