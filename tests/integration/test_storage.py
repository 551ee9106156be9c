"""Models in stores: moto's S3, and servers of our own over TLS that fail on order."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from awscrt.checksums import crc64nvme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.bases import plain_channel
from tests.integration.packaging import CONDA_FORGE, MODELS, ROOT, PackagingHarness, Ran, zip_folder
from tests.integration.storage_servers import (
    KEY_ID,
    KEY_SECRET,
    REGION,
    S3,
    Authority,
    Fault,
    Thing,
    WebStore,
    make_authority,
    serve_s3,
)
from tests.integration.test_environment import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.registry import Registry

MB = 1 << 20
# What a child process fetches, and how much memory it took more than at its start.
FETCH = """
import json, logging, os, resource, sys
from pathlib import Path
import packager.sources.stores.s3, packager.sources.stores.https
from packager.logs.progress import SilentReporter
from packager.settings import Settings
from packager.sources.stores.download import fetched
from packager.sources.stores.location import parse_model
logging.basicConfig(level=logging.INFO)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, settings = peak(), Settings.from_env(os.environ)
model = parse_model(sys.argv[1])
with fetched(model, Path(sys.argv[2]), settings=settings, environ=os.environ, reporter=SilentReporter()) as path:
    size = path.stat().st_size
print(json.dumps({"size": size, "grown": peak() - before}))
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web(authority: Authority) -> Iterator[WebStore]:
    """A web server over TLS; with AWS_ENDPOINT_URL it does for S3 too."""
    with WebStore(authority.certificate) as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with serve_s3() as running:
        place: Any = {"LocationConstraint": REGION}
        running.client.create_bucket(Bucket="models", CreateBucketConfiguration=place)
        yield running


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small wine model as a zip."""
    return zip_folder(MODELS / "wine", tmp_path_factory.mktemp("archive") / "wine.zip").read_bytes()


@pytest.fixture
def environ(tmp_path: Path, authority: Authority) -> dict[str, str]:
    """A user's environment without credentials and with the tests' authority."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    work = tmp_path / "work"
    work.mkdir()
    return {
        **kept,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PACKAGER_WORK_DIR": str(work),
        "SSL_CERT_FILE": str(authority.pem),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def packager(environ: dict[str, str], *words: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "packager", *words],
        cwd=environ["HOME"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert list(Path(environ["PACKAGER_WORK_DIR"]).iterdir()) == [], "something was left"
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def inspect(environ: dict[str, str], model: str) -> Ran:
    """Fetch a model by the whole program; what it is goes to standard output."""
    return packager(environ, "inspect", model, "-o", "json", "--verbose")


def assert_is_wine(ran: Ran) -> None:
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["model"]["name"] == "wine"


def with_keys(environ: dict[str, str], endpoint: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": KEY_SECRET, "AWS_REGION": REGION}
    return {**environ, **keys, "AWS_ENDPOINT_URL": endpoint}


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_two_gigabytes_arrive_with_flat_memory(
    environ: dict[str, str], web: WebStore, tmp_path: Path, scheme: str
) -> None:
    summed = 0
    for _ in range(2 << 10):
        summed = crc64nvme(bytes(MB), summed)
    headers = {"ETag": '"one"', "x-amz-checksum-crc64nvme": base64.b64encode(summed.to_bytes(8, "big")).decode()}
    web.things["/models/big.zip"] = Thing(size=2 << 30, headers=headers)
    web.faults.append(Fault(cut=1 << 30))
    model = f"{web.url}/models/big.zip" if scheme == "https" else "s3://models/big.zip"
    done = subprocess.run(
        [sys.executable, "-c", FETCH, model, str(tmp_path)],
        env=with_keys(environ, web.url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["size"] == 2 << 30
    assert "checked by crc64nvme" in done.stderr
    assert report["grown"] < 300 * MB
    first, second = web.ranges("/models/big.zip")
    assert first == ""
    assert (1 << 30) - 2 * MB < int(second.removeprefix("bytes=").rstrip("-")) <= 1 << 30
    assert not (tmp_path / "download").exists()


def test_memory_limit_can_fail() -> None:
    code = "import resource; held = bytearray(bytes(1 << 29)); print(resource.getrusage(0).ru_maxrss * 1024)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300 * MB


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_cut_download_is_continued(environ: dict[str, str], web: WebStore, archive: bytes, scheme: str) -> None:
    web.things["/models/wine.zip"] = Thing(body=bytes(4 * MB) + archive)  # a zip is read from its end
    web.faults += [Fault(cut=3 * MB), Fault(cut=10), Fault(status=503)]
    model = f"{web.url}/models/wine.zip" if scheme == "https" else "s3://models/wine.zip"
    ran = inspect(with_keys(environ, web.url), model)
    assert_is_wine(ran)
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in web.ranges("/models/wine.zip")[1:]]
    assert len(starts) == 3
    assert 2 * MB <= starts[0] <= starts[1] <= starts[2] <= 3 * MB + 10
    asked = [each.headers.get("if-match") for each in web.asked if each.method == "GET"]
    assert asked == [None, '"one"', '"one"', '"one"']
    assert ran.err.count(" WARNING ") == 3, ran.err


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_object_that_changes_meanwhile_is_an_error(environ: dict[str, str], web: WebStore, scheme: str) -> None:
    web.things["/models/wine.zip"] = Thing(size=4 * MB)

    def change() -> None:
        web.things["/models/wine.zip"] = Thing(size=4 * MB, headers={"ETag": '"two"'})

    web.faults.append(Fault(cut=3 * MB, then=change))
    model = f"{web.url}/models/wine.zip" if scheme == "https" else "s3://models/wine.zip"
    ran = inspect(with_keys(environ, web.url), model)
    assert ran.code == 10
    assert "was changed while it was fetched" in ran.err


@pytest.mark.parametrize("scheme", ["https", "s3"])
@pytest.mark.parametrize(
    ("fault", "code", "said", "requests"),
    [
        (Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>"), 15, "denies", 1),
        (Fault(status=401), 15, "doesn't accept", 1),
        (Fault(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>"), 10, "no object '", 1),
        (Fault(status=503, body=b"<Error><Code>SlowDown</Code></Error>"), 14, "answered 503 SlowDown", 5),
    ],
)
def test_refusals_end_at_once_and_timeouts_within_a_limit(
    environ: dict[str, str], web: WebStore, scheme: str, fault: Fault, code: int, said: str, requests: int
) -> None:
    web.faults += [fault] * 20
    model = f"{web.url}/models/wine.zip?sig=5167a7ure" if scheme == "https" else "s3://models/wine.zip"
    ran = inspect(with_keys(environ, web.url), model)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert len(web.ranges("/models/wine.zip")) == requests
    assert ran.err.count(" WARNING ") == requests - 1
    assert "5167a7ure" not in ran.err
    assert KEY_SECRET not in ran.err


def test_recovering_store_is_retried(environ: dict[str, str], web: WebStore, archive: bytes) -> None:
    web.things["/wine.zip"] = Thing(body=archive)
    web.faults += [Fault(status=503), Fault(status=429, headers={"Retry-After": "1"})]
    assert_is_wine(inspect(environ, f"{web.url}/wine.zip"))


@pytest.mark.parametrize("right", [True, False])
def test_wrong_checksum_is_refused(environ: dict[str, str], web: WebStore, archive: bytes, right: bool) -> None:
    digest = base64.b64encode(hashlib.sha256(archive if right else b"other").digest()).decode()
    web.things["/wine.zip"] = Thing(body=archive, headers={"ETag": '"one"', "Repr-Digest": f"sha-256=:{digest}:"})
    ran = inspect(environ, f"{web.url}/wine.zip")
    if right:
        assert_is_wine(ran)
        assert "checked by sha256" in ran.err
    else:
        assert ran.code == 10
        assert "is damaged: the store's repr-digest" in ran.err


def test_unknown_authority_and_closed_port_have_their_messages(
    environ: dict[str, str], web: WebStore, authority: Authority, archive: bytes
) -> None:
    web.things["/models/wine.zip"] = Thing(body=archive)
    strangers = {name: value for name, value in environ.items() if name != "SSL_CERT_FILE"}
    for model in (f"{web.url}/models/wine.zip", "s3://models/wine.zip"):
        ran = inspect(with_keys(strangers, web.url), model)
        assert ran.code == 16, ran.err
        assert "certificate" in ran.err
        assert ran.err.count(" WARNING ") == 0
        assert_is_wine(inspect({**with_keys(strangers, web.url), "PACKAGER_CA_FILE": str(authority.pem)}, model))
    ran = inspect(environ, "https://127.0.0.1:1/wine.zip")
    assert ran.code == 16
    assert "can't be reached" in ran.err


def test_proxies_are_not_used_for_loopback_hosts(
    environ: dict[str, str], web: WebStore, s3: S3, archive: bytes
) -> None:
    dead = "http://127.0.0.1:1"
    proxied = {**environ, "HTTPS_PROXY": dead, "https_proxy": dead, "HTTP_PROXY": dead, "http_proxy": dead}
    web.things["/wine.zip"] = Thing(body=archive)
    assert_is_wine(inspect(proxied, f"{web.url}/wine.zip"))
    s3.client.put_object(Bucket="models", Key="proxied.zip", Body=archive)
    ran = inspect(with_keys(proxied, s3.url), "s3://models/proxied.zip")
    assert_is_wine(ran)
    assert "checked by crc32" in ran.err  # boto3 asked for it
    other = inspect(proxied, "https://store.invalid/wine.zip")
    assert other.code == 16


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_interrupt_ends_the_download_and_leaves_nothing(
    environ: dict[str, str], web: WebStore, tmp_path: Path, scheme: str
) -> None:
    web.things["/models/wine.zip"] = Thing(size=64 * MB)
    web.faults.append(Fault(stall=8 * MB))
    model = f"{web.url}/models/wine.zip" if scheme == "https" else "s3://models/wine.zip"
    words = [sys.executable, "-m", "packager", "inspect", model]
    with subprocess.Popen(
        words, cwd=tmp_path, env=with_keys(environ, web.url), stderr=subprocess.PIPE, text=True
    ) as process:
        assert web.stalled.wait(60)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:  # it has begun to write
            with suppress(StopIteration):
                if next(Path(environ["PACKAGER_WORK_DIR"]).rglob("model.zip")).stat().st_size > MB:
                    break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)  # the server is silent for much longer
    assert process.returncode == 143, err
    assert not web.released.is_set()
    assert "interrupted by SIGTERM" in err
    assert "Traceback" not in err
    assert "pending" not in err
    assert list(Path(environ["PACKAGER_WORK_DIR"]).iterdir()) == []


@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ({"ChecksumAlgorithm": "SHA256"}, "sha256"),
        ({"ChecksumAlgorithm": "CRC64NVME"}, "crc64nvme"),
        ({"ChecksumAlgorithm": "CRC32C"}, "crc32c"),
        ({"ChecksumAlgorithm": "SHA1"}, "sha1"),
    ],
)
def test_every_checksum_of_s3_is_checked(
    environ: dict[str, str], s3: S3, archive: bytes, options: dict[str, str], checked: str
) -> None:
    s3.client.put_object(Bucket="models", Key=f"a/{checked} é+#%.zip", Body=archive, **options)
    ran = inspect(with_keys(environ, s3.url), f"s3://models/a/{checked} é+#%.zip")
    assert_is_wine(ran)
    assert f"checked by {checked}" in ran.err


def test_multipart_object_is_checked(environ: dict[str, str], s3: S3, archive: bytes) -> None:
    started = s3.client.create_multipart_upload(Bucket="models", Key="parts.zip")["UploadId"]
    parts = []
    for number, body in enumerate((bytes(6 * MB), archive), 1):
        place = {"Bucket": "models", "Key": "parts.zip", "UploadId": started, "PartNumber": number}
        parts.append({"ETag": s3.client.upload_part(**place, Body=body)["ETag"], "PartNumber": number})
    done = {"Bucket": "models", "Key": "parts.zip", "UploadId": started, "MultipartUpload": {"Parts": parts}}
    s3.client.complete_multipart_upload(**done)
    assert_is_wine(inspect(with_keys(environ, s3.url), "s3://models/parts.zip"))


def test_missing_and_refused_s3_objects_are_errors(environ: dict[str, str], s3: S3) -> None:
    keyed = with_keys(environ, s3.url)
    missing = inspect(keyed, "s3://models/none/wine.zip")
    assert missing.code == 10
    assert "no object 'none/wine.zip' in 'models'" in missing.err
    bucket = inspect(keyed, "s3://no-such-bucket/wine.zip")
    assert bucket.code == 10
    assert "no bucket 'no-such-bucket'" in bucket.err
    anonymous = inspect({**environ, "AWS_ENDPOINT_URL": s3.url}, "s3://models/wine.zip")
    assert anonymous.code == 15
    assert "no credentials for s3://models/wine.zip" in anonymous.err


def put_manifest(folder: Path, holder: dict[str, Any] | None, name: str = "wine.zip", **more: Any) -> None:
    document = {
        "modelPackaging": {"id": "wine", "spec": {"integrationName": "docker-rest"}},
        "modelHolder": None if holder is None else {"id": "store", "spec": holder},
        "trainingZipName": name,
        **more,
    }
    (folder / "mp.json").write_text(json.dumps(document))


def test_manifest_without_a_model_is_an_error_before_any_work(environ: dict[str, str], tmp_path: Path) -> None:
    put_manifest(tmp_path, None)
    without = packager(environ, "run", "mp.json")
    assert without.code == 12
    assert "no modelHolder" in without.err
    put_manifest(tmp_path, {"type": "s3", "uri": "s3://models"}, "../wine.zip")
    outside = packager(environ, "run", "mp.json")
    assert outside.code == 12
    assert "trainingZipName" in outside.err
    assert packager(environ, "run", "wine.zip").code == 2
    assert packager(environ, "run", "a", "b", "c").code == 2
    assert packager(environ, "run").code == 2


def test_role_is_assumed_for_the_store(environ: dict[str, str], s3: S3, archive: bytes, tmp_path: Path) -> None:
    s3.client.put_object(Bucket="models", Key="roles/wine.zip", Body=archive)
    role = "arn:aws:iam::123456789012:role/reader"
    holder = {"type": "s3", "uri": "s3://models/roles", "region": REGION, "role": role}
    put_manifest(tmp_path, {**holder, "keyID": KEY_ID, "keySecret": KEY_SECRET})
    ran = packager({**environ, "AWS_ENDPOINT_URL": s3.url}, "run", "mp.json", "--verbose")
    assert ran.code == 12, ran.err  # the model was read; only a docker-push target is missing
    assert "'docker-push' is required" in ran.err
    assert "checked by" in ran.err
    assert KEY_SECRET not in ran.err


def test_denied_role_is_an_error(environ: dict[str, str], web: WebStore, tmp_path: Path) -> None:
    denial = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>"
    web.faults.append(Fault(status=403, headers={"Content-Type": "text/xml"}, body=denial))
    holder = {"type": "s3", "uri": "s3://models", "role": "arn:aws:iam::123456789012:role/reader"}
    put_manifest(tmp_path, {**holder, "keyID": KEY_ID, "keySecret": KEY_SECRET})
    ran = packager({**environ, "AWS_ENDPOINT_URL": web.url}, "run", "mp.json", "--verbose")
    assert ran.code == 15, ran.err
    assert "the role arn:aws:iam::123456789012:role/reader can't be assumed by connection 'store'" in ran.err
    assert "sts:AssumeRole" in ran.err
    assert KEY_SECRET not in ran.err
    assert [each.method for each in web.asked] == ["POST"]


def service_account(url: str) -> dict[str, Any]:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    names = {"type": "service_account", "private_key_id": "id", "client_email": "reader@project.example"}
    return {**names, "private_key": key.decode(), "gcs_base_url": url}


@pytest.mark.parametrize("right", [True, False])
def test_google_and_azure_connections_fetch_and_check(
    environ: dict[str, str], web: WebStore, archive: bytes, tmp_path: Path, right: bool
) -> None:
    md5 = hashlib.md5(archive if right else b"other", usedforsecurity=False).digest()
    summed = base64.b64encode(md5).decode()
    things = {
        "/models/out/wine.zip": Thing(body=archive, headers={"ETag": '"g"', "x-goog-hash": f"md5={summed}"}),
        "/account/models/out/wine.zip": Thing(body=archive, headers={"ETag": '"a"', "Content-MD5": summed}),
    }
    web.things |= things
    account = service_account(web.url)
    holders = [
        {"type": "gcs", "uri": "gs://models/out", "keySecret": json.dumps(account)},
        {"type": "azureblob", "uri": "models/out", "keySecret": f"{web.url}/account?sv=2019&sp=r&sig=5167a7ure"},
    ]
    for holder in holders:
        put_manifest(tmp_path, holder)
        ran = packager(environ, "run", "mp.json", "--verbose")
        assert ran.code == (12 if right else 10), ran.err
        assert ("checked by md5" if right else "is damaged") in ran.err
        assert "5167a7ure" not in ran.err
        assert account["private_key"].splitlines()[1] not in ran.err
    assert {each.path for each in web.asked} == set(things)


@pytest.mark.needs("buildah", "docker-registry", "root")
@pytest.mark.timeout(600)
def test_program_fetches_the_model_from_its_holder(
    environ: dict[str, str],
    storage: dict[str, str],
    tiny_base: str,
    registry: Registry,
    s3: S3,
    tmp_path: Path,
) -> None:
    channel = plain_channel()
    harness = PackagingHarness(
        folder=tmp_path,
        environ={
            **environ,
            **storage,
            "PYTHONPATH": str(ROOT),
            "PACKAGER_CACHE_DIR": str(CACHE / "cache"),
            "PACKAGER_CONDA_MIRRORS": f"{CONDA_FORGE}=file://{channel}",
            "AWS_ENDPOINT_URL": s3.url,
        },
        base=tiny_base,
    )
    harness.put_model()
    for file in harness.model.rglob("*"):  # a zip tells even seconds only, and the newest is the image's time
        os.utime(file, (1_700_000_000, 1_700_000_000))
    body = zip_folder(harness.model, tmp_path / "local.zip").read_bytes()
    s3.client.put_object(Bucket="models", Key="trained/wine-1.zip", Body=body)
    harness.put_manifest(registry)
    holder = {"type": "s3", "uri": "s3://models/trained", "region": REGION, "keyID": KEY_ID, "keySecret": KEY_SECRET}
    harness.manifest |= {"modelHolder": {"id": "store", "spec": holder}, "trainingZipName": "wine-1.zip"}
    local = [word for word in harness.arguments() if word != str(harness.model)]
    ran = harness.packager(*local)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "result.json").read_text())["imageDigest"] == ran.out.splitlines()[-1]
    assert "checked by" in ran.err
    assert KEY_SECRET not in ran.err
    fetched = ran.out.splitlines()[-1]

    # The same model from this machine gives the same image.
    again = harness.run()
    assert again.code == 0, again.err
    assert again.out.splitlines()[-1] == fetched
