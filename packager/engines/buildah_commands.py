"""Buildah's commands: their arguments, and what their answers mean."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packager.check.report import judge, report_words
from packager.engines import rootfs
from packager.engines.build_errors import Attempt, failure, image_not_found, is_retryable, may_be_full
from packager.engines.free_space import full_folders, layer_size
from packager.engines.layer_cache import stale_names
from packager.engines.registry_files import certificate_folder
from packager.errors import BuildError, ModelCheckError, PackagerError, RegistryUnreachableError
from packager.models.integrations import docker_rest
from packager.models.reference import LOCAL_STORAGE
from packager.registry.authfile import auth_file
from packager.system.process import OutOfBoundsError
from packager.system.retries import RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packager.image.plan import ImagePlan
    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.system.process import Completed, Runner

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Session:
    """Buildah's commands and its local storage, used with one private folder.

    Buildah can't name or label the working containers of a build, but it keeps in each the path of the "default mounts
    file" that it was started with. Ours lies in the private folder (and isn't there), so it tells whose a container is.

    Attributes:
        run: How commands are run.
        env: Their environment; its TMPDIR is the private folder.
        folder: The private folder.
        storage: The container storage's folder, where it's known.
    """

    run: Runner
    env: Mapping[str, str]
    folder: Path
    storage: Path | None = None

    @property
    def mark(self) -> str:
        """What the containers of this session carry."""
        return str(self.folder / "mounts.conf")

    def buildah(self, *words: str, cwd: Path | None = None, capture: bool = False) -> Completed:
        """Run a command of Buildah."""
        argv = ["buildah", "--default-mounts-file", self.mark, *words]
        return self.run(argv, env=self.env, cwd=cwd, capture=capture, on_line=lambda line: log.debug("%s", line))

    def find_storage(self) -> Path | None:
        """Return the container storage's folder, or None where Buildah doesn't tell it."""
        done = self.buildah("info", capture=True)
        with suppress(ValueError, KeyError, TypeError):
            folder = str(json.loads(done.stdout)["store"]["GraphRoot"]) if done.returncode == 0 else ""
            return Path(folder) if folder else None
        return None

    def find(self, reference: Reference, access: RegistryAccess, architecture: str) -> dict[str, Any]:
        """Return what Buildah knows of the base image, pulled where that is needed."""
        if reference.host == LOCAL_STORAGE:
            image = self.inspect(str(reference))
            if image is None:
                raise image_not_found(Attempt(stage="inspect", subject=str(reference)))
            return image
        name = reference.with_digest(reference.digest) if reference.digest else str(reference)
        certificates, policy = self.certificates(reference, access), RetryPolicy(seconds=access.trust.retry_seconds)
        try:
            with auth_file(access.keychain, self.folder) as logins:
                words = [*pull_words(reference, access, architecture, logins, certificates), name]
                name = policy.call(lambda: self._pull(words, reference), f"pull {name}")
        except (RetryableError, RegistryUnreachableError) as trouble:
            error = trouble.error if isinstance(trouble, RetryableError) else trouble
            image = self.inspect(name)
            if image is None:
                raise error from trouble
            log.warning("%s; the copy of %s in the local storage is used", error.message, name)
            return image
        image = self.inspect(name)
        if image is None:
            raise image_not_found(Attempt(stage="inspect", subject=name))
        return image

    def certificates(self, reference: Reference, access: RegistryAccess) -> Path | None:
        """Return the folder with the certificates for a registry, or None where it needs none."""
        return certificate_folder(self.folder, reference, access.trust)

    def _pull(self, words: list[str], reference: Reference) -> str:
        done = self.buildah(*words, capture=True)
        if done.returncode == 0:
            return done.stdout.split()[-1]
        error = failure(Attempt(stage="pull", subject=words[-1], host=reference.host), done)
        raise RetryableError(error) if is_retryable(error, done) else error

    def inspect(self, image: str) -> dict[str, Any] | None:
        """Return what Buildah knows of an image of the local storage, or None where it isn't there."""
        done = self.buildah("inspect", "--type", "image", image, capture=True)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        if "image not known" in done.output:
            return None
        raise failure(Attempt(stage="inspect", subject=image), done)

    def look_into(self, image_id: str, path: str) -> dict[str, str | None]:
        """Return the image's `glibc` and `python`; nothing of it is run. Empty where it can't be looked into."""
        container = self.folder.name
        attempt = Attempt(stage="inspect", subject=image_id[:12])
        done = self.buildah("from", "--pull=never", "--name", container, image_id, capture=True)
        if done.returncode != 0:
            raise failure(attempt, done)
        try:
            if os.geteuid() == 0:
                done = self.buildah("mount", container, capture=True)
                if done.returncode == 0:
                    root = Path(done.stdout.strip())
                    return {"glibc": rootfs.find_glibc(root), "python": rootfs.find_python(root, path)}
            else:  # only there, in a mount namespace of its own, can an unprivileged user see it
                words = (
                    "unshare",
                    "--mount",
                    f"ROOT={container}",
                    "--",
                    sys.executable,
                    "-I",
                    str(rootfs.__file__),
                    path,
                )
                done = self.buildah(*words, capture=True)
                if done.returncode == 0:
                    facts: dict[str, str | None] = json.loads(done.stdout)
                    return facts
        finally:
            self.buildah("rm", container, capture=True)
        log.warning("the base image can't be looked into: %s", done.output.strip() or f"exit code {done.returncode}")
        return {}

    def build(self, plan: ImagePlan, context: Path, isolation: str) -> str:
        """Build the image and return its ID."""
        iid_file = self.folder / "iid"
        done = self.buildah(*build_args(plan, isolation), "--iidfile", str(iid_file), str(context))
        if done.returncode != 0:
            raise self._failure(Attempt(stage="build", subject=str(plan.base.reference)), done, context)
        return iid_file.read_text("ascii").strip().removeprefix("sha256:")

    def check(self, image_id: str, plan: ImagePlan, isolation: str, seconds: float) -> None:
        """See that the model serves in the image, in a container of it that is gone afterwards.

        Raises:
            ModelCheckError: It doesn't.
            BuildError: There is no such container to be had.
        """
        container = f"{self.folder.name}-check"
        done = self.buildah("from", "--pull=never", "--name", container, image_id, capture=True)
        if done.returncode != 0:
            raise failure(Attempt(stage="inspect", subject=image_id[:12]), done)
        limited = replace(self, run=partial(cast("Callable[..., Completed]", self.run), seconds=seconds))
        words = ("run", "--isolation", isolation, "--user", docker_rest.USER, container, "--")
        log.info("checking that the model serves in the image")
        try:
            done = limited.buildah(*words, *plan.config.entrypoint[:2], *report_words(plan.config), capture=True)
        except OutOfBoundsError as error:
            raise ModelCheckError(
                f"the model can't serve: {error} of loading and predicting its example",
                hint="PACKAGER_CHECK_SECONDS gives it more time, --no-check packages it unchecked",
            ) from error
        finally:
            self.buildah("rm", container, capture=True)
        judge(done, in_image=True)

    def push(
        self, image_id: str, where: str, words: Sequence[str] = (), *, host: str = "", cwd: Path | None = None
    ) -> str:
        """Copy an image out of the storage; return the digest, which counts only with an exit code of 0.

        Raises:
            RetryableError: The registry failed in a way that another attempt may mend.
            PackagerError: It failed for another reason.
        """
        digest_file = self.folder / "digest"
        done = self.buildah("push", *words, "--digestfile", str(digest_file), image_id, where, cwd=cwd)
        if done.returncode != 0:
            error = self._failure(Attempt(stage="push", subject=where.removeprefix("docker://"), host=host), done)
            raise RetryableError(error) if host and is_retryable(error, done) else error
        digest = digest_file.read_text("ascii").strip()
        if not _DIGEST.fullmatch(digest):
            raise BuildError(f"buildah push wrote no digest but {digest[:80]!r}")
        return digest

    def _failure(self, attempt: Attempt, done: Completed, context: Path | None = None) -> PackagerError:
        """Tell which error a command stands for that writes much; a full disk is not always named as the cause."""
        if may_be_full(done.output):
            folders = [self.folder, self.storage] if self.storage else [self.folder]
            needed = layer_size(context) if context else 0
            attempt = replace(attempt, full=full_folders(folders, needed=needed))
        return failure(attempt, done)

    def name(self, image_id: str, name: str) -> None:
        """Give an image a name in the local storage."""
        self.buildah("tag", image_id, name, capture=True)

    def remove_stale_images(self) -> None:
        """Remove the images that are no longer kept for their layers; whatever can't be removed stays."""
        done = self.buildah("images", "--json", capture=True)
        images = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        stale = stale_names(name for image in images or [] for name in image.get("names") or [])
        if stale:
            self.buildah("rmi", *stale, capture=True)

    def remove_containers(self, mark: str = "") -> bool:
        """Remove the working containers that a failed or killed session left: this one, or the one with that mark.

        What goes wrong is not raised, as what went wrong before is what counts; it gives False.
        """
        with suppress(PackagerError, ValueError):
            done = self.buildah("containers", "--json", capture=True)
            removed = done.returncode == 0
            for container in (json.loads(done.stdout or "null") or []) if removed else []:
                done = self.buildah("inspect", "--type", "container", container["id"], capture=True)
                if done.returncode == 0 and json.loads(done.stdout).get("DefaultMountsFilePath") == (mark or self.mark):
                    removed &= self.buildah("rm", container["id"], capture=True).returncode == 0
            return removed
        return False


def access_words(
    reference: Reference, access: RegistryAccess, logins: Path, certificates: Path | None = None
) -> list[str]:
    """Return how a command reaches a registry: with which logins and certificates, and whether in plain HTTP.

    For a host with mirrors `registries.conf` says that of each place: `--tls-verify` would overrule it for all of them.
    """
    insecure = reference.host in access.insecure_hosts
    mirrored = len(access.trust.endpoints(reference)) > 1
    return [
        *("--authfile", str(logins)),
        *(("--cert-dir", str(certificates)) if certificates else ()),
        *(() if mirrored else (f"--tls-verify={'false' if insecure else 'true'}",)),
    ]


def pull_words(
    reference: Reference, access: RegistryAccess, architecture: str, logins: Path, certificates: Path | None = None
) -> list[str]:
    """Return the `pull` command without the image."""
    policy = "missing" if reference.digest else "always"
    words = access_words(reference, access, logins, certificates)
    return ["pull", "--policy", policy, "--platform", f"linux/{architecture}", *words]


def build_args(plan: ImagePlan, isolation: str) -> list[str]:
    """Return the `build` command without its files and the context; the same plan gives the same words."""
    return [
        "build",
        *("--isolation", isolation),
        "--layers",
        "--force-rm",
        "--pull=never",  # inspect_base has pulled it
        *("--format", "oci"),
        *("--timestamp", str(int(plan.timestamp.timestamp()))),
        "--identity-label=false",  # Buildah's version has no place in the image
        # Else Buildah writes the first name that the base happens to have in the storage.
        *("--annotation", f"org.opencontainers.image.base.name={plan.base.reference}"),
    ]
