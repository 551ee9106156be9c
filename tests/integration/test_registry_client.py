"""The registry client with real registries, and images that the real Buildah pushed to them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from packager.engines.base_inspection import inspect_remote_base
from packager.errors import ImageNotFoundError, PackagerError, RegistryAuthError, RegistryUnreachableError
from packager.models.reference import Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.keychain import Keychain
from packager.settings import Settings
from tests.integration.registry import PASSWORD, Registry, free_port, serve_registry

if TYPE_CHECKING:
    from pathlib import Path

    from packager.image.plan import BaseImage
    from packager.models.connection import Connection

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")


def reach(name: str, connection: Connection | None = None) -> RegistryAccess:
    trust = Trust(retry_seconds=1)
    insecure_hosts = find_insecure_hosts([Reference.parse(name)], trust)
    return RegistryAccess(keychain=Keychain.open(connection, None), trust=trust, insecure_hosts=insecure_hosts)


def inspect(name: str, folder: Path, connection: Connection | None = None) -> BaseImage:
    settings = Settings(work_dir=folder, cache_dir=folder / "cache")
    return inspect_remote_base(Reference.parse(name), reach(name, connection), settings)


def buildah(environ: dict[str, str], *words: str) -> None:
    subprocess.run(["buildah", *words], env=environ, check=True, capture_output=True)


def push(
    registry: Registry,
    environ: dict[str, str],
    image: str,
    name: str,
    image_format: str = "oci",
    *,
    index: bool = False,
) -> None:
    command = ["manifest", "push", "--all"] if index else ["push"]
    login = ["--creds", f"{registry.username}:{registry.password}"] if registry.username else []
    words = ["--format", image_format, *login, "--tls-verify=false", image, f"docker://{registry.host}/{name}"]
    buildah(environ, *command, *words)


@pytest.mark.parametrize("image_format", ["oci", "v2s2"])
def test_base_is_inspected(
    registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path, image_format: str
) -> None:
    push(registry, storage, tiny_base, f"looked/{image_format}:1", image_format)
    base = inspect(f"{registry.host}/looked/{image_format}:1", tmp_path)
    assert base.digest == registry.digest(f"looked/{image_format}", "1")
    assert base.glibc is not None
    assert base.python == "3.11"
    assert dict(base.env)["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    by_digest = inspect(f"{registry.host}/looked/{image_format}@{base.digest}", tmp_path)
    assert (by_digest.digest, by_digest.glibc) == (base.digest, base.glibc)


def test_password_is_needed(
    password_registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path
) -> None:
    push(password_registry, storage, tiny_base, "team/base:1")
    name = f"{password_registry.host}/team/base:1"
    for path in ("", "team"):
        assert inspect(name, tmp_path, password_registry.connection(path)).python == "3.11"
    for connection in (None, password_registry.connection(password="wrong")):
        with pytest.raises(RegistryAuthError, match=r"refused the credentials.*: UNAUTHORIZED") as caught:
            inspect(name, tmp_path, connection)
        assert PASSWORD not in caught.value.message
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("auth-", "packager-base"))]


def test_index_is_resolved(registry: Registry, storage: dict[str, str], tiny_base: str, tmp_path: Path) -> None:
    buildah(storage, "manifest", "create", "localhost/index:1", tiny_base)
    push(registry, storage, "localhost/index:1", "indexed/base:1", index=True)
    index = registry.manifest("indexed/base", "1")
    assert "manifests" in index
    base = inspect(f"{registry.host}/indexed/base:1", tmp_path)
    assert base.digest == index["manifests"][0]["digest"]
    assert base.python == "3.11"
    asked = registry.digest("indexed/base", "1")
    assert inspect(f"{registry.host}/indexed/base@{asked}", tmp_path).digest == asked


@pytest.mark.parametrize("name", ["no/such:1", "looked/never@sha256:" + "0" * 64])
def test_missing_base_is_an_error(registry: Registry, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageNotFoundError, match="has no image"):
        inspect(f"{registry.host}/{name}", tmp_path)


def test_unreachable_registry_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachableError, match="can't be reached"):
        inspect(f"127.0.0.1:{free_port()}/base/image:1", tmp_path)
    with pytest.raises(RegistryUnreachableError, match="can't be reached"):
        inspect("no-such-host.invalid/base/image:1", tmp_path)


def test_plain_http_registry_is_named(registry: Registry, tmp_path: Path) -> None:
    port = registry.host.rpartition(":")[2]
    with pytest.raises(RegistryUnreachableError) as caught:
        inspect(f"127.0.0.2:{port}/base/image:1", tmp_path)
    assert isinstance(caught.value, PackagerError)


def test_changed_blob_is_refused(storage: dict[str, str], tiny_base: str, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "registry") as registry:
        push(registry, storage, tiny_base, "changed/base:1")
        digest = registry.manifest("changed/base", "1")["config"]["digest"].removeprefix("sha256:")
        blob = tmp_path / f"registry/data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
        config = json.loads(blob.read_bytes())
        config["config"]["Env"] = ["PATH=/elsewhere"]
        text = json.dumps(config).encode()
        blob.write_bytes(text.ljust(blob.stat().st_size))
        with pytest.raises(PackagerError, match="gave a document whose digest isn't sha256"):
            inspect(f"{registry.host}/changed/base:1", tmp_path)
