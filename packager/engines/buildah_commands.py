"""Buildah's commands: their arguments and configuration files, and the meaning of their output.

Formats of the files: containers-certs.d(5) and containers-registries.conf(5).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packager.check.report import raise_for_report, report_args
from packager.engines import rootfs
from packager.engines.build_errors import Attempt, failure, image_not_found, is_retryable, may_be_full
from packager.engines.buildah_storage import full_folders, layer_size, stale_names
from packager.errors import BuildError, ModelCheckError, PackagerError, RegistryUnreachableError
from packager.models.integrations import docker_rest
from packager.models.reference import LOCAL_STORAGE, Reference
from packager.registry.authfile import auth_file
from packager.system.process import OutOfBoundsError
from packager.system.retries import RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packager.image.plan import ImagePlan
    from packager.registry.access import RegistryAccess, Trust
    from packager.system.process import Completed, Runner

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def certificate_folder(folder: Path, reference: Reference, trust: Trust) -> Path | None:
    """Write the `--cert-dir` for an image's host and its mirrors below `folder`; return None if not needed.

    A command uses one such folder for all hosts. Of several client certificates, the TLS library sends one whose
    authority the server accepts.

    Raises:
        OSError: A file can't be copied.
    """
    hosts = dict.fromkeys(place.host for place in reversed(trust.endpoints(reference)))  # its own host first
    shown = [trust.client_certificates[host] for host in hosts if host in trust.client_certificates]
    if trust.ca_file is None and not shown:
        return None
    certificates = folder / f"certificates-{reference.host.replace(':', '-')}"
    certificates.mkdir(mode=0o700, exist_ok=True)
    if trust.ca_file is not None:
        shutil.copyfile(trust.ca_file, certificates / "ca.crt")
    for number, pair in enumerate(shown):  # read in the order of their names
        shutil.copyfile(pair.certificate, certificates / f"{number}.cert")
        key = certificates / f"{number}.key"
        key.touch(mode=0o600)
        key.write_bytes(pair.key.read_bytes())
    return certificates


def registries_conf(access: RegistryAccess) -> str:
    """Return a `registries.conf` with the mirrors; empty without mirrors, so that the system's own is used.

    It also marks the hosts with mirrors, and the mirrors, that use plain HTTP.
    """
    hosts: dict[str, list[str]] = {}
    for host, mirror in access.trust.mirrors:
        hosts.setdefault(host, []).append(mirror)
    parts = []
    for host, mirrors in hosts.items():
        insecure = json.dumps(host in access.insecure_hosts)
        parts.append(f"[[registry]]\nlocation = {json.dumps(host)}\ninsecure = {insecure}\n")
        for mirror in mirrors:
            insecure = json.dumps(Reference.parse(f"{mirror}/x").host in access.insecure_hosts)
            parts.append(f"[[registry.mirror]]\nlocation = {json.dumps(mirror)}\ninsecure = {insecure}\n")
    return "\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Session:
    """Buildah's commands and its local storage, used with one private folder.

    Buildah can't name or label the working containers of a build, but it stores in each the path of the "default mounts
    file" that it was started with. Ours is a path in the private folder (without a file), which identifies the session.

    Attributes:
        run: The runner of commands.
        env: The environment of commands; its TMPDIR is the private folder.
        folder: The private folder.
        storage: The container storage's folder, if known.
    """

    run: Runner
    env: Mapping[str, str]
    folder: Path
    storage: Path | None = None

    @property
    def mark(self) -> str:
        """The mark of this session's containers."""
        return str(self.folder / "mounts.conf")

    def buildah(self, *args: str, cwd: Path | None = None, capture: bool = False) -> Completed:
        """Run a Buildah command."""
        argv = ["buildah", "--default-mounts-file", self.mark, *args]
        return self.run(argv, env=self.env, cwd=cwd, capture=capture, on_line=lambda line: log.debug("%s", line))

    def find_storage(self) -> Path | None:
        """Return the container storage's folder, or None if unknown."""
        done = self.buildah("info", capture=True)
        with suppress(ValueError, KeyError, TypeError):
            folder = str(json.loads(done.stdout)["store"]["GraphRoot"]) if done.returncode == 0 else ""
            return Path(folder) if folder else None
        return None

    def find(self, reference: Reference, access: RegistryAccess, architecture: str) -> dict[str, Any]:
        """Return Buildah's description of the base image, after pulling it if needed."""
        if reference.host == LOCAL_STORAGE:
            image = self.inspect(str(reference))
            if image is None:
                raise image_not_found(Attempt(stage="inspect", subject=str(reference)))
            return image
        name = reference.with_digest(reference.digest) if reference.digest else str(reference)
        certificates, policy = self.certificates(reference, access), RetryPolicy(seconds=access.trust.retry_seconds)
        try:
            with auth_file(access.keychain, self.folder) as logins:
                args = [*pull_args(reference, access, architecture, logins, certificates), name]
                name = policy.call(lambda: self._pull(args, reference), f"pull {name}")
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
        """Return the folder with the certificates for a registry, or None without any."""
        return certificate_folder(self.folder, reference, access.trust)

    def _pull(self, args: list[str], reference: Reference) -> str:
        done = self.buildah(*args, capture=True)
        if done.returncode == 0:
            return done.stdout.split()[-1]
        error = failure(Attempt(stage="pull", subject=args[-1], host=reference.host), done)
        raise RetryableError(error) if is_retryable(error, done) else error

    def inspect(self, image: str) -> dict[str, Any] | None:
        """Return Buildah's description of an image in the local storage, or None if it doesn't exist."""
        done = self.buildah("inspect", "--type", "image", image, capture=True)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        if "image not known" in done.output:
            return None
        raise failure(Attempt(stage="inspect", subject=image), done)

    def look_into(self, image_id: str, path: str) -> dict[str, str | None]:
        """Return the image's `glibc` and `python` without running it; empty if it can't be inspected."""
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
            else:  # an unprivileged user can mount it only in a new mount namespace
                args = (
                    "unshare",
                    "--mount",
                    f"ROOT={container}",
                    "--",
                    sys.executable,
                    "-I",
                    str(rootfs.__file__),
                    path,
                )
                done = self.buildah(*args, capture=True)
                if done.returncode == 0:
                    info: dict[str, str | None] = json.loads(done.stdout)
                    return info
        finally:
            self.buildah("rm", container, capture=True)
        log.warning("cannot inspect the base image: %s", done.output.strip() or f"exit code {done.returncode}")
        return {}

    def build(self, plan: ImagePlan, context: Path, isolation: str) -> str:
        """Build the image and return its ID."""
        iid_file = self.folder / "iid"
        done = self.buildah(*build_args(plan, isolation), "--iidfile", str(iid_file), str(context))
        if done.returncode != 0:
            raise self._failure(Attempt(stage="build", subject=str(plan.base.reference)), done, context)
        return iid_file.read_text("ascii").strip().removeprefix("sha256:")

    def check(self, image_id: str, plan: ImagePlan, isolation: str, seconds: float) -> None:
        """Check that the model serves, in a temporary container of the image.

        Raises:
            ModelCheckError: It doesn't.
            BuildError: The container can't be created.
        """
        container = f"{self.folder.name}-check"
        done = self.buildah("from", "--pull=never", "--name", container, image_id, capture=True)
        if done.returncode != 0:
            raise failure(Attempt(stage="inspect", subject=image_id[:12]), done)
        limited = replace(self, run=partial(cast("Callable[..., Completed]", self.run), seconds=seconds))
        args = ("run", "--isolation", isolation, "--user", docker_rest.USER, container, "--")
        log.info("checking that the model serves in the image")
        try:
            done = limited.buildah(*args, *plan.config.entrypoint[:2], *report_args(plan.config), capture=True)
        except OutOfBoundsError as error:
            raise ModelCheckError(
                f"the model can't serve: {error} of loading and predicting its example",
                hint="raise the limit with PACKAGER_CHECK_SECONDS, or skip the check with --no-check",
            ) from error
        finally:
            self.buildah("rm", container, capture=True)
        raise_for_report(done, in_image=True)

    def push(
        self, image_id: str, where: str, args: Sequence[str] = (), *, host: str = "", cwd: Path | None = None
    ) -> str:
        """Push an image from the storage; return its digest, which is only valid with exit code 0.

        Raises:
            RetryableError: A retryable registry error.
            PackagerError: Another error.
        """
        digest_file = self.folder / "digest"
        done = self.buildah("push", *args, "--digestfile", str(digest_file), image_id, where, cwd=cwd)
        if done.returncode != 0:
            error = self._failure(Attempt(stage="push", subject=where.removeprefix("docker://"), host=host), done)
            raise RetryableError(error) if host and is_retryable(error, done) else error
        digest = digest_file.read_text("ascii").strip()
        if not _DIGEST.fullmatch(digest):
            raise BuildError(f"buildah push wrote an invalid digest: {digest[:80]!r}")
        return digest

    def _failure(self, attempt: Attempt, done: Completed, context: Path | None = None) -> PackagerError:
        """Return the error for a failed command, including a full disk that its output doesn't mention."""
        if may_be_full(done.output):
            folders = [self.folder, self.storage] if self.storage else [self.folder]
            needed = layer_size(context) if context else 0
            attempt = replace(attempt, full=full_folders(folders, needed=needed))
        return failure(attempt, done)

    def name(self, image_id: str, name: str) -> None:
        """Give an image a name in the local storage."""
        self.buildah("tag", image_id, name, capture=True)

    def remove_stale_images(self) -> None:
        """Remove images that the layer cache no longer needs; errors are ignored."""
        done = self.buildah("images", "--json", capture=True)
        images = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        stale = stale_names(name for image in images or [] for name in image.get("names") or [])
        if stale:
            self.buildah("rmi", *stale, capture=True)

    def remove_containers(self, mark: str = "") -> bool:
        """Remove the working containers of a failed or killed session: this one, or the one with `mark`.

        Returns False on errors, so that an earlier error is not hidden.
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


def access_args(
    reference: Reference, access: RegistryAccess, logins: Path, certificates: Path | None = None
) -> list[str]:
    """Return a command's arguments for logins, certificates and TLS of a registry.

    For a host with mirrors, `registries.conf` configures TLS of each endpoint, which `--tls-verify` would override.
    """
    insecure = reference.host in access.insecure_hosts
    mirrored = len(access.trust.endpoints(reference)) > 1
    return [
        *("--authfile", str(logins)),
        *(("--cert-dir", str(certificates)) if certificates else ()),
        *(() if mirrored else (f"--tls-verify={'false' if insecure else 'true'}",)),
    ]


def pull_args(
    reference: Reference, access: RegistryAccess, architecture: str, logins: Path, certificates: Path | None = None
) -> list[str]:
    """Return the `pull` command without the image."""
    policy = "missing" if reference.digest else "always"
    args = access_args(reference, access, logins, certificates)
    return ["pull", "--policy", policy, "--platform", f"linux/{architecture}", *args]


def build_args(plan: ImagePlan, isolation: str) -> list[str]:
    """Return the `build` command without its files and the context; equal plans give equal arguments."""
    return [
        "build",
        *("--isolation", isolation),
        "--layers",
        "--force-rm",
        "--pull=never",  # pulled by inspect_base
        *("--format", "oci"),
        *("--timestamp", str(int(plan.timestamp.timestamp()))),
        "--identity-label=false",  # would add Buildah's version to the image
        # Otherwise Buildah writes the first name of the base image in the storage.
        *("--annotation", f"org.opencontainers.image.base.name={plan.base.reference}"),
    ]
