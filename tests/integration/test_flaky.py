"""A registry behind a front that fails every third request: 429, 503, a reset connection, in turn."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from packager.engines.buildah import BuildahEngine
from packager.errors import RegistryError
from packager.image.plan import BaseImage, ImageConfig, ImagePlan
from packager.models.image import Descriptor
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.blobs import FileBlob
from packager.registry.client import find_image
from packager.registry.uploads import Uploads, check_push
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.fronts import FailingProxy, Flaky, HalfWritten, serve_front
from tests.integration.test_buildah import CREATED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "docker-registry", "htpasswd")


@dataclass
class FlakyRegistryHarness:
    folder: Path
    environ: dict[str, str]
    registry: Registry

    @property
    def engine(self) -> BuildahEngine:
        settings = Settings(work_dir=self.folder / "work", cache_dir=self.folder / "cache")
        return BuildahEngine(settings, partial(run_command, grace=5), self.environ)

    @contextmanager
    def access(self, front: FailingProxy, seconds: float) -> Iterator[RegistryAccess]:
        trust = Trust(retry_seconds=seconds)
        insecure_hosts = find_insecure_hosts([Reference.parse(f"{front.host}/any")], trust)
        yield RegistryAccess(trust=trust, insecure_hosts=insecure_hosts)


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], tiny_base: str, registry: Registry) -> FlakyRegistryHarness:
    words = ["push", "--tls-verify=false", tiny_base, f"docker://{registry.host}/flaky/base:1"]
    subprocess.run(["buildah", *words], env=storage, check=True, capture_output=True)
    (tmp_path / "work").mkdir()
    return FlakyRegistryHarness(tmp_path, storage, registry)


def context(folder: Path, base: str) -> Path:
    made = folder / "context"
    made.mkdir()
    layers = [f"layer{number}" for number in range(4)]
    for name in layers:
        (made / name).write_bytes(os.urandom(100_000))
    copies = "".join(f"COPY {name} /{name}\n" for name in layers)
    (made / "Dockerfile").write_text(f"FROM {base}\n{copies}")
    return made


def plan(base: str) -> ImagePlan:
    reference = Reference.parse(base)
    return ImagePlan(base=BaseImage(reference=reference), steps=(), config=ImageConfig(), timestamp=CREATED)


def test_buildah_works_despite_faults(harness: FlakyRegistryHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "packager")
    with serve_front(harness.registry, Flaky()) as front, harness.access(front, 60) as access:
        base, to = f"{front.host}/flaky/base:1", Reference.parse(f"{front.host}/flaky/wine:1")
        assert access.insecure_hosts == {front.host}
        found = harness.engine.inspect_base(Reference.parse(base), access)
        assert found.digest == harness.registry.digest("flaky/base", "1")
        check_push(to, access)
        built = harness.engine.build(plan(base), context(harness.folder, base), Destination(reference=to), access)
    assert built.digest == harness.registry.digest("flaky/wine", "1")
    for blob in harness.registry.manifest("flaky/wine", "1")["layers"]:
        data = harness.registry.blob("flaky/wine", blob["digest"])
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == blob["digest"]
    assert min(front.count(trouble) for trouble in ("429", "503", "reset")) > 0, front.seen
    assert list((harness.folder / "work").iterdir()) == []
    failures = len(front.seen) - front.count("passed on")
    assert caplog.text.count("follows in") <= failures, "an attempt was logged more than once"
    assert caplog.text.count("uploading with retries of single requests") == 1


def test_buildah_retries_a_manifest_while_another_client_sends_its_blob(harness: FlakyRegistryHarness) -> None:
    with serve_front(harness.registry, HalfWritten()) as front, harness.access(front, 60) as access:
        base, to = f"{front.host}/flaky/base:1", Reference.parse(f"{front.host}/flaky/twice:1")
        harness.engine.inspect_base(Reference.parse(base), access)
        built = harness.engine.build(plan(base), context(harness.folder, base), Destination(reference=to), access)
    assert built.digest == harness.registry.digest("flaky/twice", "1")
    assert front.count("half-written") == 1


def test_our_uploads_succeed_despite_faults(harness: FlakyRegistryHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "packager")
    blobs = []
    for number in range(4):
        path = harness.folder / str(number)
        path.write_bytes(data := os.urandom(500_000))
        known = Descriptor(media_type="x/y", digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
        blobs.append(FileBlob(path=path, known=known))
    with serve_front(harness.registry, Flaky()) as front, harness.access(front, 60) as access:
        base = Reference.parse(f"{front.host}/flaky/base:1")
        with (
            closing(Uploads(Reference.parse(f"{front.host}/flaky/own:1"), access)) as uploads,
            find_image(base, access, "amd64") as (repository, image),
        ):
            for blob in blobs:
                assert not uploads.has(blob.known.digest)
                assert uploads.send(blob) == blob.known
                assert uploads.has(blob.known.digest)
            assert uploads.mount(image.layers[0].digest, base)
            with repository.layer(image.layers[0]) as layer:
                assert layer.digest() == image.layers[0].digest
            manifest = json.dumps(
                {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                 "config": blobs[0].known.to_dict(), "layers": [blob.known.to_dict() for blob in blobs]}
            ).encode()  # fmt: skip
            digest = uploads.put_manifest("1", manifest, "application/vnd.oci.image.manifest.v1+json")
    assert digest == harness.registry.digest("flaky/own", "1")
    for blob in blobs:
        assert harness.registry.blob("flaky/own", blob.known.digest) == blob.path.read_bytes()
    failures = [done for _, _, done in front.seen if done != "passed on"]
    assert len(failures) >= 6
    assert caplog.text.count("follows in") <= len(failures), "an attempt was logged more than once"
    assert caplog.text.count("follows in") > 0
    assert "_state" not in caplog.text


def test_retries_end_within_the_time_limit(harness: FlakyRegistryHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "packager")
    with serve_front(harness.registry, Flaky(every=1)) as front, harness.access(front, 10) as access:
        to = Reference.parse(f"{front.host}/flaky/never:1")
        with pytest.raises(RegistryError) as caught:
            check_push(to, access)
        asked = len(front.seen)
        assert 2 <= asked < 40
        assert caplog.text.count("follows in") == asked - 1
        base = "localhost/tiny-base:1"
        with pytest.raises(RegistryError) as caught:
            harness.engine.build(plan(base), context(harness.folder, base), Destination(reference=to), access)
        assert caught.value.message.startswith(f"push of {to}")
        assert caught.value.hint
    assert harness.registry.digest("flaky/never", "1") is None
    assert list((harness.folder / "work").iterdir()) == []
