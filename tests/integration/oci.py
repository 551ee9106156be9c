"""The oci engine on plans of a few files, on the tests' small base image in a registry."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packager.engines.oci import OciEngine
from packager.image.plan import Content, ImageConfig, ImagePlan, Layer
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess, Trust, find_insecure_hosts
from packager.registry.keychain import Keychain
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.packaging import PODMAN, ROOT, PackagingHarness, Ran

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.engines import BuiltImage
    from packager.models.connection import Connection

HOME = PurePosixPath("/opt/odahu")


def push(
    environ: dict[str, str], image: str, host: str, name: str, *, image_format: str = "oci", index: bool = False
) -> None:
    """Push an image of the tests' storage."""
    command = ["manifest", "push", "--all"] if index else ["push"]
    words = ["buildah", *command, "--format", image_format, "--tls-verify=false", image, f"docker://{host}/{name}"]
    subprocess.run(words, env=environ, check=True, capture_output=True)


def assert_loads_under_its_name(environ: dict[str, str], archive: Path, name: str, *forms: str) -> None:
    """Load an archive in each form that is in it, as `podman load` does and as `podman pull` is asked to.

    Of an archive in both forms Docker's classic store reads docker's, its containerd store reads OCI's.
    """
    images = ("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={name}")
    for load in (("load", "--input", str(archive)), *(("pull", f"{form}:{archive}") for form in forms)):
        podman(environ, *load)
        assert name in podman(environ, *images).split(), load
        podman(environ, "rmi", name)


def podman(environ: dict[str, str], *words: str) -> str:
    done = subprocess.run([*PODMAN, *words], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class OciHarness:
    """An engine, and a look at what it leaves behind."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    retry_seconds: float = 20
    connection: Connection | None = None

    @property
    def engine(self) -> OciEngine:
        values = {"work_dir": self.folder / "work", "cache_dir": self.folder / "cache", **self.settings}
        return OciEngine(Settings.model_validate(values), partial(run_command, grace=5), {})

    @contextmanager
    def access(self, *references: Reference) -> Iterator[RegistryAccess]:
        trust = Trust(retry_seconds=self.retry_seconds)
        insecure_hosts = find_insecure_hosts(references, trust)
        yield RegistryAccess(keychain=Keychain.open(self.connection, None), trust=trust, insecure_hosts=insecure_hosts)

    def build(self, base: str, to: str | Destination, files: dict[str, bytes | Path], **config: Any) -> BuiltImage:
        """Put each file into a layer of its own, and the image at its destination."""
        reference = Reference.parse_base(base)
        destination = Destination.parse(to, Reference.parse("r.io/models/wine:1")) if isinstance(to, str) else to
        with self.access(reference, destination.reference) as access:
            plan = ImagePlan(
                base=self.engine.inspect_base(reference, access),
                steps=tuple(
                    Layer(
                        name=name,
                        contents=(Content(source=data, destination=HOME / name, is_file=isinstance(data, Path)),),
                    )
                    for name, data in files.items()
                ),
                config=ImageConfig(**{"entrypoint": ("/bin/cat",), **config}),
            )
            return self.engine.build(plan, self.folder, destination, access)

    def assert_nothing_left(self, *there: str) -> None:
        assert not list((self.folder / "work").iterdir())
        assert {path.name for path in self.folder.iterdir()} - {"cache", "work", *there} == set()


def pip_harness(folder: Path, storage: dict[str, str], base: str) -> PackagingHarness:
    """A harness with a model whose requirements take the least time."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")}
    places = {"PACKAGER_WORK_DIR": str(folder / "work"), "PACKAGER_CACHE_DIR": str(folder / "cache")}
    harness = PackagingHarness(
        folder=folder, environ={**inherited, **storage, **places, "PYTHONPATH": str(ROOT)}, base=base
    )
    harness.put_model()
    manifest = (harness.model / "odahuflow.project.yaml").read_text()
    manifest = manifest.replace("dependencies: conda", "dependencies: pip").replace("conda_path", "requirements_path")
    (harness.model / "odahuflow.project.yaml").write_text(manifest.replace("conda.yaml", "requirements.txt"))
    put_requirements(harness, "# nothing\n")
    return harness


def put_requirements(harness: PackagingHarness, text: str) -> None:
    (harness.model / "odahuflow_model/requirements.txt").write_text(text)


def words(harness: PackagingHarness, output: str, *more: str) -> list[str]:
    return ["build", str(harness.model), "-a", f"dockerfileBaseImage={harness.base}", "--output", output, *more]


def build(harness: PackagingHarness, output: str, *more: str) -> Ran:
    ran = harness.packager(*words(harness, output, *more))
    assert ran.code == 0, ran.err
    return ran


def digest_of(ran: Ran) -> str:
    return ran.out.strip().rpartition("@")[2]
