"""What Kaniko ends with -> errors.

The inner part of each registry's answer is real: what go-containerregistry 0.20 said of docker-registry 2.8 and of a
server of given statuses, through `crane`. The words around it, and those of RUN steps, are written as Kaniko's source
has them (osscontainertools/kaniko: cmd/executor/cmd/root.go, pkg/executor, pkg/commands/run.go); the executor could
not be had where this was written, so they have not been met in a run yet.
"""

from __future__ import annotations

import pytest

from packager.engines.kaniko_command import kaniko_failure
from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    OutOfMemoryError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.models.reference import Reference
from packager.system.process import Completed

BASE = Reference.parse("base.io:5000/team/base:1")
TO = Reference.parse("r.io:5000/team/model:1")
CHECK = (
    "error checking push permissions -- make sure you entered the correct tag name, and that you are authenticated "
    'correctly, and try again: checking push permission for "r.io:5000/team/model:1": '
)
PUSH = "error pushing image: failed to push to destination r.io:5000/team/model:1: "
PULL = "error building image: "
UNPACK = "error building image: error building stage: failed to get filesystem from image: "
STEP = "error building image: error building stage: failed to execute command: waiting for process to exit: "
HEAD = "HEAD http://r.io:5000/v2/team/model/manifests/1: unexpected status code "
NO_BODY = " (HEAD responses have no body, use GET for details)"
GET = "GET http://base.io:5000/v2/team/base/manifests/1: "
ACTIONS = "; [map[Action:pull Class: Name:team/base Type:repository]]"
REFUSED = (
    'Get "https://r.io:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused; '
    'Get "http://r.io:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused'
)
UNTRUSTED = (
    'Get "https://r.io:5000/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority '
    '(possibly because of "x509: invalid signature: parent certificate cannot sign this kind of certificate" while '
    'trying to verify candidate authority certificate "localhost")'
)
CASES: list[tuple[int, str, type[PackagerError], str]] = [
    (1, f"{CHECK}{HEAD}401 Unauthorized{NO_BODY}", RegistryAuthError, "push of r.io:5000/team/model:1"),
    (1, f"{PUSH}{HEAD}401 Unauthorized{NO_BODY}", RegistryAuthError, "refused the credentials"),
    (1, f"{PUSH}{HEAD}403 Forbidden{NO_BODY}", RegistryAuthError, "refused the credentials"),
    (1, f"{PUSH}{HEAD}429 Too Many Requests{NO_BODY}", RegistryError, "limits the rate"),
    (1, f"{PUSH}{HEAD}503 Service Unavailable{NO_BODY}", RegistryError, "couldn't store"),
    (1, f"{PUSH}{REFUSED}", RegistryUnreachableError, "connection refused"),
    (1, f"{CHECK}{REFUSED}", RegistryUnreachableError, "r.io:5000 can't be reached"),
    (1, f"{PUSH}{UNTRUSTED}", RegistryUnreachableError, "can't be trusted"),
    (1, f"{PUSH}unexpected EOF of something new", RegistryError, "something new"),
    (1, f"{PULL}{GET}UNAUTHORIZED: authentication required{ACTIONS}", RegistryAuthError, "pull of base.io:5000"),
    (1, f"{PULL}{GET}MANIFEST_UNKNOWN: manifest unknown; map[Tag:1]", ImageNotFoundError, "has no image base.io:5000"),
    (1, f"{PULL}{GET}unexpected status code 500 Internal Server Error", RegistryError, "500"),
    (
        1,
        f'{PULL}Get "https://base.io:5000/v2/": dial tcp: lookup base.io on 10.255.255.53:53: no such host',
        RegistryUnreachableError,
        "base.io:5000 can't be reached",
    ),
    (1, f"{UNPACK}write /usr/lib/libc.so.6: no space left on device", DiskFullError, "no space"),
    (1, f"{PULL}error building stage: failed to take snapshot: write /kaniko/1: no space left on device",
     DiskFullError, "no space"),
    (42, f"Running: [/bin/sh -c exit 42]\nhello\n{STEP}exit status 42", BuildStepError, "with exit code 42:\n"),
    (1, f"Running: [/opt/conda/bin/conda env]\n{STEP}exit status 1", BuildStepError, "`RUN /opt/conda/bin/conda env`"),
    (255, f"Running: [python x]\n{STEP}signal: killed", OutOfMemoryError, "`RUN python x` was killed"),
    (137, f"Running: [python x]\n{STEP}exit status 137", OutOfMemoryError, "`RUN python x` was killed"),
    (255, f"Running: [python x]\n{STEP}signal: aborted", BuildStepError, "by the signal 'aborted'"),
    (1, f"Running: [cat]\ncat: /x: No space left on device\n{STEP}exit status 1", DiskFullError, "`RUN cat`"),
    (
        1,
        ("Running: [/bin/nope]\nerror building image: error building stage: failed to execute command: "
        "starting command: fork/exec /bin/nope: no such file or directory"),
        BuildStepError,
        "`RUN /bin/nope` failed to start",
    ),
    (-9, "Pushing image to r.io:5000/team/model:1", OutOfMemoryError, "was killed (signal 9)"),
    (137, "", OutOfMemoryError, "was killed (signal 9)"),
    (1, "error building image: parsing dockerfile: dockerfile parse error", BuildError, "dockerfile parse error"),
    (1, "Error: unknown flag: --frobnicate", BuildError, "--frobnicate"),
    (2, "panic: runtime error\ngoroutine 1 [running]:", BuildError, "goroutine"),
    (1, "", BuildError, "no reason"),
]  # fmt: skip


def error_of(returncode: int, output: str) -> PackagerError:
    return kaniko_failure(BASE, TO, Completed(argv=("executor",), returncode=returncode, output=output))


@pytest.mark.parametrize(("returncode", "output", "expected", "message"), CASES)
def test_failures(returncode: int, output: str, expected: type[PackagerError], message: str) -> None:
    error = error_of(returncode, output)
    assert type(error) is expected
    assert message in error.message


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[2] not in (BuildError, RegistryError)], ids=lambda case: str(case[1][-40:])
)
def test_every_class_of_failure_says_what_to_do(case: tuple[int, str, type[PackagerError], str]) -> None:
    assert error_of(*case[:2]).hint


def test_a_warning_about_the_cache_is_not_what_failed() -> None:
    output = (
        "Error uploading layer to cache: failed to push to destination r.io:5000/team/model/cache:1: UNAUTHORIZED\n"
        f"Running: [false]\n{STEP}exit status 1"
    )
    assert type(error_of(1, output)) is BuildStepError


def test_a_long_output_is_cut() -> None:
    assert len(error_of(1, f"{'x' * 4000}\n{STEP}exit status 1").message) < 1500
