"""Opening a bucket of Google Cloud Storage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import GCSStore

from packager.errors import RequestError
from packager.sources.stores.location import is_loopback
from packager.sources.stores.objects import ONCE, ClientEnvironment, OpenedStore, read_failure, signed_headers
from packager.sources.stores.store import Access

if TYPE_CHECKING:
    from packager.models.connection import Connection
    from packager.sources.stores.location import RemoteModel


def open_store(model: RemoteModel, environment: ClientEnvironment) -> OpenedStore:
    """Open the bucket of a model with the connection's service account, else with the environment's credentials.

    Those are Google's own: GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, the metadata server.

    Raises:
        RequestError: The connection's keySecret is not a service account key.
        StorageAuthError: There are no credentials.
    """
    account = _service_account(model.connection) if model.connection else None
    credential = "the default credentials of Google Cloud"
    if model.connection is not None:
        credential = f"connection {model.connection.id!r}" + ("" if account else f" ({credential})")
    access = Access(
        location=str(model),
        store=model.bucket,
        credential=credential,
        permission="storage.objects.get (roles/storage.objectViewer)",
    )
    endpoint = _endpoint(model.connection, account) if model.connection and account else None
    try:
        store = GCSStore(
            model.bucket,
            client_options=environment.client_options(endpoint),
            retry_config=ONCE,
            config={"service_account_key": account} if account else None,
        )
    except (BaseError, ValueError, OSError) as error:
        raise read_failure(error if isinstance(error, BaseError) else BaseError(str(error)), access) from error
    return OpenedStore(
        store=store, access=access, checksums=lambda etag: signed_headers(store, model.key, etag, environment)
    )


def _endpoint(connection: Connection, account: str) -> str | None:
    """Return the endpoint of an emulator, which its key names."""
    endpoint = json.loads(account).get("gcs_base_url")
    if (
        endpoint
        and not str(endpoint).startswith("https://")
        and not is_loopback(urlsplit(str(endpoint)).hostname or "")
    ):
        raise RequestError(f"connection {connection.id!r}: its gcs_base_url is plain HTTP", hint="write https://...")
    return endpoint or None


def _service_account(connection: Connection) -> str | None:
    text = connection.spec.key_secret.get_secret_value().strip()
    if not text:
        return None
    try:
        document = json.loads(text)
        whole = all(isinstance(document[name], str) for name in ("private_key", "client_email"))
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RequestError(
            f"connection {connection.id!r}: its keySecret is not a service account key",
            hint="put the whole JSON file of the key there (client_email, private_key, ...)",
        )
    return text
