from __future__ import annotations

import pytest

from packager.errors import ArtifactError, PackagerError, StorageAuthError, StorageError, StorageUnreachableError
from packager.sources.stores.store import Access, ErrorResponse, refused, unreachable, without_queries

ACCESS = Access(
    location="s3://models/a/wine.zip", store="models", credential="connection 'st'", permission="s3:GetObject"
)


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (404, "NoSuchKey", ArtifactError, "no object 'a/wine.zip' in 'models'"),
        (404, "", ArtifactError, "no object 'a/wine.zip'"),
        (404, "BlobNotFound", ArtifactError, "no object"),
        (404, "NoSuchBucket", ArtifactError, "no bucket 'models'"),
        (404, "ContainerNotFound", ArtifactError, "no bucket 'models'"),
        (412, "PreconditionFailed", ArtifactError, "was changed while it was fetched"),
        (401, "", StorageAuthError, "doesn't accept connection 'st'"),
        (403, "AccessDenied", StorageAuthError, "denies connection 'st'"),
        (403, "InvalidAccessKeyId", StorageAuthError, "doesn't accept connection 'st'"),
        (403, "SignatureDoesNotMatch", StorageAuthError, "doesn't accept connection 'st'"),
        (400, "ExpiredToken", StorageAuthError, "has expired"),
        (403, "RequestTimeTooSkewed", StorageAuthError, "has expired"),
        (301, "PermanentRedirect", StorageError, "another region"),
        (400, "AuthorizationHeaderMalformed", StorageError, "another region"),
        (416, "InvalidRange", StorageError, "answered 416 InvalidRange"),
        (503, "SlowDown", StorageError, "answered 503 SlowDown"),
    ],
)
def test_responses_have_their_errors(status: int, code: str, kind: type[PackagerError], said: str) -> None:
    error = refused(ACCESS, ErrorResponse.from_text(status, f"<Error><Code>{code}</Code><Message>so</Message></Error>"))
    assert type(error) is kind
    assert said in error.message
    assert error.hint


def test_denial_names_the_permission() -> None:
    assert "s3:GetObject" in refused(ACCESS, ErrorResponse(status=403)).hint


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (408, "", True),
        (429, "", True),
        (500, "", True),
        (502, "", True),
        (503, "", True),
        (400, "RequestTimeout", True),
        (501, "", False),
        (400, "", False),
        (401, "", False),
        (403, "", False),
        (404, "", False),
        (412, "", False),
        (416, "", False),
    ],
)
def test_responses_are_retryable_or_not(status: int, code: str, again: bool) -> None:
    assert ErrorResponse(status=status, code=code).is_retryable is again


def test_refused_certificate_has_its_own_message() -> None:
    error = unreachable(ACCESS, "ConnectError: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    assert isinstance(error, StorageUnreachableError)
    assert "can't be trusted" in error.message
    assert "PACKAGER_CA_FILE" in error.hint


def test_text_from_outside_is_sanitized_without_signatures() -> None:
    text = without_queries("GET https://acc.blob.core.windows.net/c/k?sv=1&sig=5167\nfailed " + "x " * 500)
    assert text.startswith("GET https://acc.blob.core.windows.net/c/k failed x")
    assert len(text) <= 400
