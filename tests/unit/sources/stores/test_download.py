from __future__ import annotations

import base64
import errno
import hashlib
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from packager.errors import (
    ArtifactError,
    DiskFullError,
    PackagerError,
    StorageAuthError,
    StorageError,
    StorageUnreachableError,
)
from packager.logs.progress import SilentReporter
from packager.sources.stores.download import Transfer
from packager.sources.stores.https import WebSource
from packager.sources.stores.location import RemoteModel, parse_model

MB = 1 << 20
BODY = bytes(range(256)) * (3 * MB // 256)
URL = "https://store.example/models/wine.zip?sig=5167a7ure"


class Breaking(httpx.SyncByteStream):
    """A body after which the connection breaks."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx.ReadError("connection reset by peer")


class Store:
    """The other side of the transport: an object, and the faults of the first requests."""

    def __init__(self, *faults: Callable[[httpx.Request], httpx.Response] | None, body: bytes = BODY) -> None:
        self.body, self.faults = body, list(faults)
        self.headers = {"ETag": '"one"'}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        fault = self.faults.pop(0) if self.faults else None
        return fault(request) if fault else self.give(request)

    def give(self, request: httpx.Request, *, cut: int | None = None) -> httpx.Response:
        etag = self.headers.get("ETag")
        if request.headers.get("If-Match", etag) != etag:
            return httpx.Response(412, stream=httpx.ByteStream(b""))
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        size, rest = len(self.body), self.body[start:]
        headers = {**self.headers, "Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        status = 206 if start else 200
        if cut is not None:
            return httpx.Response(status, headers=headers, stream=Breaking(rest[:cut]))
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(rest))

    def cut(self, after: int) -> Callable[[httpx.Request], httpx.Response]:
        return lambda request: self.give(request, cut=after)

    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.asked]


def answer(status: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx.Response(status, headers=named, stream=httpx.ByteStream(b""))


def broken(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


def untrusted(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate")


@contextmanager
def transfer(
    store: Store, folder: Path, *, limit: int = 1 << 30, text: str = URL, environ: dict[str, str] | None = None
) -> Iterator[tuple[Transfer, list[float]]]:
    model = parse_model(text)
    assert isinstance(model, RemoteModel)
    slept: list[float] = []
    source = WebSource(
        model,
        context=ssl.create_default_context(),
        environ={"NETRC": str(folder / "no-netrc"), **(environ or {})},
        transport=httpx.MockTransport(store),
    )
    with closing(source):
        yield (
            Transfer(source=source, model=model, target=folder / "model.zip", limit=limit, sleep=slept.append),
            slept,
        )


def fetch(store: Store, folder: Path, **options: object) -> list[float]:
    with transfer(store, folder, **options) as (made, slept):  # type: ignore[arg-type]
        made.run(SilentReporter())
    return slept


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_object_is_downloaded(tmp_path: Path) -> None:
    store = Store()
    assert fetch(store, tmp_path) == []
    assert (tmp_path / "model.zip").read_bytes() == BODY
    assert [str(request.url) for request in store.asked] == [URL]
    assert store.asked[0].headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in store.asked[0].headers


def test_cut_download_is_continued(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.faults = [store.cut(2 * MB), store.cut(100)]
    slept = fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY
    assert store.ranges() == [None, f"bytes={2 * MB}-", f"bytes={2 * MB + 100}-"]
    assert [request.headers.get("If-Match") for request in store.asked] == [None, '"one"', '"one"']
    assert len(slept) == 1  # after progress at once, without any after a pause
    assert len(warnings(caplog)) == 2  # each cut is logged once
    assert "5167a7ure" not in caplog.text


def test_download_without_a_validator_starts_over(tmp_path: Path) -> None:
    store = Store()
    store.headers = {}
    store.faults = [store.cut(2 * MB)]
    fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY
    assert store.ranges() == [None, None]


def test_date_is_used_instead_of_a_weak_etag(tmp_path: Path) -> None:
    store = Store()
    store.headers = {"ETag": 'W/"one"', "Last-Modified": "Sun, 02 Nov 2025 08:00:00 GMT"}
    store.faults = [store.cut(2 * MB)]
    fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY
    assert store.asked[1].headers["If-Unmodified-Since"] == "Sun, 02 Nov 2025 08:00:00 GMT"
    assert store.ranges()[1] == f"bytes={2 * MB}-"


def test_server_without_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    store = Store()
    whole = {"ETag": '"one"', "Content-Length": str(len(BODY))}
    store.faults = [
        store.cut(2 * MB),
        lambda _request: httpx.Response(200, headers=whole, stream=httpx.ByteStream(BODY)),
    ]
    fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY


@pytest.mark.parametrize("honest", [True, False])
def test_changed_object_is_an_error(tmp_path: Path, honest: bool) -> None:
    store = Store()

    def changed(request: httpx.Request) -> httpx.Response:
        store.headers = {"ETag": '"two"'}
        if not honest:  # a server that ignores If-Match
            del request.headers["If-Match"]
        return store.give(request)

    store.faults = [store.cut(2 * MB), changed]
    with pytest.raises(ArtifactError, match="was changed while it was fetched"):
        fetch(store, tmp_path)
    assert len(store.asked) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, StorageAuthError), (403, StorageAuthError), (404, ArtifactError), (400, StorageError), (501, StorageError)],
)
def test_refusal_is_not_retried(tmp_path: Path, status: int, kind: type[PackagerError]) -> None:
    store = Store(*[answer(status)] * 9)
    with pytest.raises(kind) as caught:
        fetch(store, tmp_path)
    assert type(caught.value) is kind
    assert len(store.asked) == 1
    assert "5167a7ure" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("fault", [answer(503), answer(500), answer(429), answer(408), broken])
def test_retryable_failure_is_retried(
    tmp_path: Path, fault: Callable[[httpx.Request], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(fault, fault)
    slept = fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY
    assert len(slept) == 2
    assert all(0.25 <= seconds <= 10.25 for seconds in slept)
    assert len(warnings(caplog)) == 2


def test_retry_after_is_bounded(tmp_path: Path) -> None:
    slept = fetch(Store(answer(429, retry_after="12"), answer(503, retry_after="86400")), tmp_path)
    assert slept == [12, 120]


@pytest.mark.parametrize(("fault", "kind"), [(answer(503), StorageError), (broken, StorageUnreachableError)])
def test_retries_end_after_five_attempts(
    tmp_path: Path, fault: Callable[[httpx.Request], httpx.Response], kind: type[PackagerError]
) -> None:
    store = Store(*[fault] * 99)
    with pytest.raises(kind) as caught:
        fetch(store, tmp_path)
    assert type(caught.value) is kind
    assert len(store.asked) == 5


def test_refused_certificate_is_not_retried(tmp_path: Path) -> None:
    store = Store(*[untrusted] * 9)
    with pytest.raises(StorageUnreachableError, match="certificate"):
        fetch(store, tmp_path)
    assert len(store.asked) == 1


@pytest.mark.parametrize("header", ["Content-MD5", "Repr-Digest", "Digest"])
def test_checksum_of_the_server_is_checked(tmp_path: Path, header: str) -> None:
    sums = {
        "Content-MD5": base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode(),
        "Digest": "SHA-256=" + base64.b64encode(hashlib.sha256(BODY).digest()).decode(),
        "Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:",
    }
    store = Store()
    store.headers |= {header: sums[header]}
    store.faults = [store.cut(2 * MB)]
    fetch(store, tmp_path)
    store.body = BODY[:-1] + b"!"
    with pytest.raises(ArtifactError, match="is damaged"):
        fetch(store, tmp_path)


def test_digest_in_the_location_is_checked(tmp_path: Path) -> None:
    fetch(Store(), tmp_path, text=f"{URL}#sha256={hashlib.sha256(BODY).hexdigest()}")
    with pytest.raises(ArtifactError, match="the digest in the location") as caught:
        fetch(Store(), tmp_path, text=f"{URL}#sha256={'0' * 64}")
    assert "5167a7ure" not in caught.value.message


def test_wrong_range_is_refused(tmp_path: Path) -> None:
    store = Store()
    wrong = {"ETag": '"one"', "Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}
    store.faults = [
        store.cut(2 * MB),
        lambda _request: httpx.Response(206, headers=wrong, stream=httpx.ByteStream(BODY)),
    ]
    with pytest.raises(StorageError, match="was asked for the bytes from 2097152 on"):
        fetch(store, tmp_path)


@pytest.mark.parametrize("has_length", [True, False])
def test_too_large_object_is_refused(tmp_path: Path, has_length: bool) -> None:
    store = Store()
    if not has_length:
        headers = {"ETag": '"one"', "Transfer-Encoding": "chunked"}
        store.faults = [lambda _request: httpx.Response(200, headers=headers, stream=Breaking(BODY))]
    with pytest.raises(ArtifactError, match="larger than 1000 bytes"):
        fetch(store, tmp_path, limit=1000)


def test_too_small_disk_is_an_error_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=10))
    with pytest.raises(DiskFullError, match=f"{len(BODY)} bytes"):
        fetch(Store(), tmp_path)


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Transfer, "_keep", full)
    with pytest.raises(DiskFullError, match="no space left"):
        fetch(Store(), tmp_path)


def test_redirect_is_followed_but_not_to_plain_http(tmp_path: Path) -> None:
    fetch(Store(answer(302, location="https://other.example/wine.zip")), tmp_path)
    with pytest.raises(StorageError, match=r"other\.example over plain HTTP"):
        fetch(Store(answer(302, location="http://other.example/wine.zip")), tmp_path)
    with pytest.raises(StorageError, match="too many times"):
        fetch(Store(*[answer(302, location="https://other.example/wine.zip")] * 99), tmp_path)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("ftp://localhost/wine.zip", "redirects to ftp://, which is not the URL of a web server"),
        ("file:///etc/passwd", "redirects to file://, which is not the URL of a web server"),
        ("https://xn--/wine.zip", "redirects to an invalid URL"),
        ("https://é..x/wine.zip", "redirects to an invalid URL"),
        ("https://a..b/wine.zip", "redirects to an invalid URL"),
        (f"https://{'a' * 64}.example/wine.zip", "redirects to an invalid URL"),
    ],
)
def test_invalid_redirect_is_an_error(tmp_path: Path, target: str, said: str) -> None:
    def look_up(request: httpx.Request) -> httpx.Response:
        request.url.raw_host.decode().encode("idna")  # as the socket does
        raise AssertionError(request.url)

    store = Store(lambda _request: httpx.Response(302, headers=[(b"Location", target.encode())]), look_up)
    with pytest.raises(StorageError) as caught:
        fetch(store, tmp_path)
    assert type(caught.value) is StorageError
    assert caught.value.message == f"{URL.partition('?')[0]} {said}"


@pytest.mark.parametrize(
    ("faults", "host"),
    [
        ([broken], "store.example"),
        ([answer(302, location="https://other.example:8443/x"), broken], "other.example:8443"),
    ],
)
def test_unreachable_host_is_named(
    tmp_path: Path, faults: list[Callable[[httpx.Request], httpx.Response]], host: str
) -> None:
    with pytest.raises(StorageUnreachableError, match=f"'{host}' can't be reached"):
        fetch(Store(*faults * 9), tmp_path)


@pytest.mark.parametrize("asked", ["Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "9" * 5000])
def test_absurd_retry_after_is_bounded(tmp_path: Path, asked: str) -> None:
    [slept] = fetch(Store(answer(503, retry_after=asked)), tmp_path)
    assert 0.25 <= slept <= 120


@pytest.mark.parametrize("numbers", ["bytes {}-{}/{}", "bytes 2097152-{}/{}"])
def test_absurd_range_is_refused(tmp_path: Path, numbers: str) -> None:
    store = Store()
    absurd = answer(206, etag='"one"', content_range=numbers.replace("{}", "9" * 5000))
    store.faults = [store.cut(2 * MB), absurd]
    with pytest.raises(StorageError, match="was asked for the bytes from 2097152 on, and gave") as caught:
        fetch(store, tmp_path)
    assert len(caught.value.message) < 500


def test_absurd_length_is_ignored(tmp_path: Path) -> None:
    headers = {"ETag": '"one"', "Content-Length": "9" * 5000}
    store = Store(lambda _request: httpx.Response(200, headers=headers, stream=httpx.ByteStream(BODY)))
    fetch(store, tmp_path)
    assert (tmp_path / "model.zip").read_bytes() == BODY


def test_netrc_login_is_sent_to_its_host_only(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine store.example login ann password pa55\n")
    store = Store(answer(302, location="https://other.example/wine.zip"))
    fetch(store, tmp_path, environ={"NETRC": str(netrc)})
    assert [request.headers.get("Authorization") for request in store.asked] == ["Basic YW5uOnBhNTU=", None]
    with pytest.raises(StorageAuthError, match=r"the login of \.netrc"):
        fetch(Store(answer(401)), tmp_path, text=URL.partition("?")[0], environ={"NETRC": str(netrc)})


def test_progress_has_the_whole_size(tmp_path: Path) -> None:
    steps: list[int] = []
    tasks: list[tuple[str, int | None]] = []

    class Listening(SilentReporter):
        @contextmanager
        def task(self, title: str, total: int | None, *, unit: str = "B") -> Iterator[Callable[[int], None]]:
            assert unit == "B"
            tasks.append((title, total))
            yield steps.append

    store = Store()
    store.headers = {}
    store.faults = [store.cut(2 * MB)]
    with transfer(store, tmp_path) as (made, _):
        made.run(Listening())
    assert tasks == [("Fetching wine.zip", len(BODY))]
    assert sum(steps) == len(BODY)
