"""Real outputs of Buildah 1.28 (docker-registry 2.8, and a server that answers with a given status) -> errors."""

from __future__ import annotations

import pytest

from packager.engines.build_errors import Attempt, Stage, failure, is_retryable, may_be_full
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
from packager.system.process import Completed

BLOB = "sha256:9b3d9e96bfd7c474bd0d0fe5623a425d656ec7fe17db6a1d7bf49cc8e840c7bc"
COPYING = f"Getting image source signatures\nCopying blob {BLOB}\n"
PUSHING = f'{COPYING}Error: pushing image "localhost/base:1" to "docker://r.io:5000/a/b:1": '
REUSING = f"{PUSHING}trying to reuse blob {BLOB} at destination: "
PULLING = "Trying to pull r.io:5000/a/b:1...\nError: initializing source docker://r.io:5000/a/b:1: "
RETRY = (
    'time="2026-11-22T12:29:09Z" level=warning msg="Failed, retrying in 2s ... (1/3). Error: pinging container '
    'registry r.io:5000: Get \\"http://r.io:5000/v2/\\": dial tcp 127.0.0.1:5999: connect: connection refused"\n'
)
STEP = 'STEP 1/2: FROM localhost/base:1\nSTEP 2/2: RUN ["/bin/sh","-c","echo hello; exit 42"]\n'
PUSHES: list[tuple[str, type[PackagerError], str]] = [
    (
        f"{REUSING}checking whether a blob {BLOB} exists in r.io:5000/a/b: unauthorized: authentication required",
        RegistryAuthError,
        "refused the credentials",
    ),
    (f"{REUSING}failed to read from destination repository a/b: 403 (Forbidden)", RegistryAuthError, "403"),
    (
        (
            f"{PUSHING}writing blob: initiating layer upload to /v2/a/b/blobs/uploads/ in r.io:5000: "
            "denied: requested access to the resource is denied"
        ),
        RegistryAuthError,
        "denied",
    ),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": http: server '
            "gave HTTP response "
            "to HTTPS client"
        ),
        RegistryUnreachableError,
        "plain HTTP",
    ),
    (
        (
            f'{COPYING}{RETRY}{REUSING}pinging container registry r.io:5000: Get "http://r.io:5000/v2/": dial tcp '
            "127.0.0.1:5999: connect: connection refused"
        ),
        RegistryUnreachableError,
        "connection refused",
    ),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": dial tcp: lookup r.io on '
            "10.255.255.53:53: no such host"
        ),
        RegistryUnreachableError,
        "no such host",
    ),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": x509: certificate signed by '
            'unknown authority (possibly because of "x509: invalid signature: parent certificate '
            "cannot sign this kind of "
            'certificate" while trying to verify candidate authority certificate "localhost")'
        ),
        RegistryUnreachableError,
        "can't be trusted",
    ),
    (
        f"{PUSHING}writing blob: uploading layer chunked: received unexpected HTTP status: 500 Internal Server Error",
        RegistryError,
        "couldn't store",
    ),
    (
        f"{PUSHING}writing blob: uploading layer: received unexpected HTTP status: 413 Request Entity Too Large",
        RegistryError,
        "takes no requests of this size",
    ),
    (
        f"{REUSING}failed to read from destination repository a/b: 503 (Service Unavailable)",
        RegistryError,
        "couldn't store",
    ),
    (
        f"{REUSING}pinging container registry r.io:5000: invalid status code from registry 503 (Service Unavailable)",
        RegistryError,
        "couldn't store",
    ),
    (f"{REUSING}failed to read from destination repository a/b: 429 (Too Many Requests)", RegistryError, "rate"),
    (f"{PUSHING}writing blob: uploading layer chunked: StatusCode: 429, ", RegistryError, "rate"),
    (f"{PUSHING}writing blob: uploading layer chunked: StatusCode: 503, ", RegistryError, "couldn't store"),
    (f"{PUSHING}writing blob: uploading layer chunked: StatusCode: 403, ", RegistryAuthError, "refused"),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": x509: certificate has '
            "expired or is not yet valid: current time 2026-11-22T15:00:00Z is after 2026-11-21T15:00:00Z"
        ),
        RegistryUnreachableError,
        "has expired, or is not valid yet",
    ),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": x509: certificate is valid '
            "for other.io, not r.io"
        ),
        RegistryUnreachableError,
        "is for another name: x509: certificate is valid for other.io, not r.io",
    ),
    (
        (
            f'{REUSING}pinging container registry 10.0.0.1: Get "https://10.0.0.1/v2/": x509: cannot validate '
            "certificate for 10.0.0.1 because it doesn't contain any IP SANs"
        ),
        RegistryUnreachableError,
        "is for another name",
    ),
    (
        (
            f'{REUSING}pinging container registry r.io:5000: Get "https://r.io:5000/v2/": remote error: tls: '
            "bad certificate"
        ),
        RegistryUnreachableError,
        "didn't accept our TLS connection",
    ),
    (
        f"{PUSHING}writing blob: initiating layer upload to /v2/a/b/blobs/uploads/ in r.io:5000: unknown: boom",
        RegistryError,
        "unknown: boom",
    ),
    (
        f"{PUSHING}writing blob: storing blob to file: write /var/tmp/x: no space left on device",
        DiskFullError,
        "this machine",
    ),
]
PULLS: list[tuple[str, type[PackagerError], str]] = [
    (
        f"{PULLING}reading manifest 1 in r.io:5000/a/b: manifest unknown: manifest unknown",
        ImageNotFoundError,
        "r.io:5000 has no image",
    ),
    (
        f"{PULLING}reading manifest 1 in r.io:5000/a/b: unauthorized: authentication required",
        RegistryAuthError,
        "refused",
    ),
    (f"{PULLING}reading manifest 1 in r.io:5000/a/b: denied", RegistryAuthError, "refused"),
    (
        f"{PULLING}reading manifest 1 in r.io:5000/a/b: received unexpected HTTP status: 502 Bad Gateway",
        RegistryError,
        "502 Bad Gateway",
    ),
    (f"{PULLING}reading manifest 1 in r.io:5000/a/b: toomanyrequests: pull rate limit", RegistryError, "rate"),
    (
        (
            'Error: writing blob: adding layer with blob "sha256:9b3d": Error processing tar file(exit '
            "status 1): write "
            "/lib/libc.so.6: no space left on device"
        ),
        DiskFullError,
        "this machine",
    ),
]
PASSING: list[tuple[str, bool]] = [
    ("pinging container registry r.io:5000: invalid status code from registry 503 (Service Unavailable)", True),
    ("writing blob: received unexpected HTTP status: 502 Bad Gateway", True),
    ('writing blob: Patch "https://r.io/v2/a/b/blobs/uploads/1": read: connection reset by peer', True),
    (
        'writing blob: Patch "https://r.io/v2": write tcp 10.0.0.1:2->10.0.0.2:3: use of closed network connection',
        True,
    ),
    ('writing blob: Put "https://r.io/v2/a": http: server closed idle connection', True),
    ('pinging container registry r.io: Get "https://r.io/v2/": EOF', True),
    ("failed to read from destination repository a/b: 429 (Too Many Requests)", True),
    ("writing blob: uploading layer chunked: StatusCode: 429, ", True),
    ("writing blob: uploading layer chunked: StatusCode: 502, ", True),
    ("writing blob: uploading layer chunked: StatusCode: 413, ", False),
    ("failed to read from destination repository a/b: 403 (Forbidden)", False),
    ("writing blob: initiating layer upload: unauthorized: authentication required", False),
    ('pinging container registry r.io: Get "https://r.io/v2/": x509: certificate signed by unknown authority', False),
    ('pinging container registry r.io: Get "https://r.io/v2/": dial tcp: connect: connection refused', False),
]
BUILDS: list[tuple[int, str, type[PackagerError], str]] = [
    (
        42,
        (
            f"{STEP}hello\nsubprocess exited with status 42\nsubprocess exited with status 42\n"
            'Error: building at STEP "RUN /bin/sh -c echo hello; exit 42": exit status 42'
        ),
        BuildStepError,
        "`RUN /bin/sh -c echo hello; exit 42` failed with exit code 42",
    ),
    (
        42,
        f'{STEP}hello\nError: building at STEP "RUN /bin/sh -c exit 42": while running runtime: exit status 42',
        BuildStepError,
        "exit code 42",
    ),
    (
        1,
        (
            f"{STEP}process failed to start with error: fork/exec /bin/nope: no such file or "
            "directoryprocess exited with "
            "error: exec: not startedsubprocess exited with status 1\n"
            'Error: building at STEP "RUN /bin/nope": exit status 1'
        ),
        BuildStepError,
        "/bin/nope",
    ),
    (
        1,
        (
            f"{STEP}error running container: from /usr/bin/crun creating container for [/bin/sh -c true]: cgroups in "
            "hybrid mode not supported, drop all controllers from cgroupv2\n: exit status 1\n"
            'time="2026-11-22T12:29:23Z" level=error msg="did not get container create message from subprocess: EOF"\n'
            'Error: building at STEP "RUN /bin/sh -c true": while running runtime: exit status 1'
        ),
        BuildError,
        "cannot start RUN steps",
    ),
    (
        1,
        (
            f"{STEP}subprocess exited on killed\nsubprocess exited with status 1\n"
            'Error: building at STEP "RUN /bin/sh -c kill -9 $$": exit status 1'
        ),
        OutOfMemoryError,
        "was killed",
    ),
    (137, 'Error: building at STEP "RUN python x": exit status 137', OutOfMemoryError, "was killed"),
    (-9, "STEP 1/2: FROM localhost/base:1", OutOfMemoryError, "was killed"),
    (
        1,
        (
            f"{STEP}cat: /x: No space left on device\nsubprocess exited with status 1\nsubprocess "
            "exited with status 1\n"
            'Error: building at STEP "RUN cat": exit status 1'
        ),
        DiskFullError,
        "no space",
    ),
    (
        125,
        (
            'STEP 2/2: COPY big /big\nError: building at STEP "COPY big /big": 3 errors occurred:\n'
            '\t* reading "/ctx/big": x\n'
            '\t* storing "/ctx/big": copier: put: error writing file "/big": write /big: no space left on device\n\n'
        ),
        DiskFullError,
        "no space",
    ),
    (
        125,
        "STEP 1/2: FROM localhost/nope:1\nError: creating build container: localhost/nope:1: image not known",
        ImageNotFoundError,
        "the local storage has no image",
    ),
    (
        125,
        (
            'Error: building at STEP "COPY nope /f": checking on sources under "/ctx": copier: stat: '
            '"/nope": no such file '
            "or directory"
        ),
        BuildError,
        "no such file",
    ),
    (125, "", BuildError, "no reason"),
]


# Of a full TMPDIR, with and without `--timestamp`; the others are told by other parts of containers/image.
UNCLEAR: list[tuple[Stage, str]] = [
    (
        "build",
        (
            "Error: committing container for step {Env:[] Command:copy}: copying layers and metadata for container "
            '"f": initializing source containers-storage:tiny-base-working-container: storing layer '
            '"06f0" to file: io: read/write on closed pipe'
        ),
    ),
    ("build", 'Error: storing layer "06f0" to file: short write'),
    ("push", f"{PUSHING}writing blob: storing blob to file: unexpected EOF"),
]


@pytest.mark.parametrize(("stage", "output"), UNCLEAR)
def test_writing_that_ended_early(stage: Stage, output: str) -> None:
    assert may_be_full(output)
    done = Completed(argv=("buildah",), returncode=125, output=output)
    full = failure(Attempt(stage=stage, subject="r.io/a:1", full=("/job/x", "/graph")), done)
    assert type(full) is DiskFullError
    assert "no space left in /job/x or /graph" in full.message
    assert "PACKAGER_WORK_DIR" in full.hint
    assert type(failure(Attempt(stage=stage, subject="r.io/a:1"), done)) is BuildError


def test_a_full_disk_does_not_explain_every_failure() -> None:
    for stage, tables in (("push", PUSHES), ("pull", PULLS)):
        for output, expected, _ in tables:
            done = Completed(argv=("buildah",), returncode=125, output=output)
            error = failure(Attempt(stage=stage, subject="r.io:5000/a/b:1", host="r.io:5000", full=("/job",)), done)  # type: ignore[arg-type]
            assert type(error) is expected


def error_of(stage: Stage, host: str, returncode: int, output: str) -> PackagerError:
    return failure(
        Attempt(stage=stage, subject="r.io:5000/a/b:1", host=host),
        Completed(argv=("buildah",), returncode=returncode, output=output),
    )


@pytest.mark.parametrize(("output", "expected", "message"), PUSHES)
def test_pushes(output: str, expected: type[PackagerError], message: str) -> None:
    error = error_of("push", "r.io:5000", 125, output)
    assert type(error) is expected
    assert message in error.message


@pytest.mark.parametrize(("output", "expected", "message"), PULLS)
def test_pulls(output: str, expected: type[PackagerError], message: str) -> None:
    error = error_of("pull", "r.io:5000", 125, output)
    assert type(error) is expected
    assert message in error.message


@pytest.mark.parametrize(("returncode", "output", "expected", "message"), BUILDS)
def test_builds(returncode: int, output: str, expected: type[PackagerError], message: str) -> None:
    error = error_of("build", "", returncode, output)
    assert type(error) is expected
    assert message in error.message


@pytest.mark.parametrize("output", [output for output, expected, _ in PUSHES if expected is not DiskFullError])
def test_what_a_registry_answers_names_the_registry(output: str) -> None:
    assert "r.io:5000" in error_of("push", "r.io:5000", 125, output).message


def test_a_registry_out_of_space_is_not_our_disk() -> None:
    output = (
        f"{PUSHING}writing blob: uploading layer chunked: unknown: write /var/lib/registry/x: no space left on device"
    )
    error = error_of("push", "r.io:5000", 125, output)
    assert type(error) is RegistryError
    assert "may be full or broken" in error.hint


def test_a_long_output_is_cut() -> None:
    error = error_of("build", "", 1, "x" * 4000 + '\nError: building at STEP "RUN x": exit status 1')
    assert len(error.message) < 1500


@pytest.mark.parametrize(("told", "passing"), PASSING)
def test_what_may_pass(told: str, passing: bool) -> None:
    done = Completed(argv=("buildah",), returncode=125, output=f"{PUSHING}{told}")
    error = failure(Attempt(stage="push", subject="r.io/a/b:1", host="r.io"), done)
    assert is_retryable(error, done) is passing
