"""Opening a container of Azure Blob Storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore

from packager.errors import RequestError
from packager.sources.stores.location import is_loopback
from packager.sources.stores.objects import ONCE, ClientEnvironment, OpenedStore, read_failure, signed_headers
from packager.sources.stores.store import Access

if TYPE_CHECKING:
    from obstore.store import AzureConfig

    from packager.models.connection import Connection
    from packager.sources.stores.checksums import Checksum
    from packager.sources.stores.location import RemoteModel


@dataclass(frozen=True, kw_only=True)
class Account:
    """A storage account and its credential: a SAS token, an account key, or neither.

    Attributes:
        name: The account's name; empty where only the environment knows it.
        endpoint: The service's URL if it isn't the public one, e.g. an emulator's.
    """

    name: str = ""
    endpoint: str | None = None
    sas: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


def open_store(model: RemoteModel, environment: ClientEnvironment) -> OpenedStore:
    """Open the container of a model with the connection's SAS URL or account key, else with AZURE_* variables.

    Raises:
        RequestError: The connection's secret is neither.
        StorageAuthError: There are no credentials.
    """
    account = read_account(model.connection, model.account) if model.connection else Account(name=model.account)
    credential = "the default credentials of Azure"
    if model.connection is not None:
        own = account.sas or account.key
        credential = f"connection {model.connection.id!r}" + ("" if own else f" ({credential})")
    access = Access(
        location=str(model),
        store=model.bucket,
        credential=credential,
        permission="reading blobs (Storage Blob Data Reader, or sp=r in the SAS)",
    )
    options: AzureConfig = {}
    if account.name:
        options["account_name"] = account.name
    if account.endpoint:
        options["endpoint"] = account.endpoint
    if account.sas:
        options["sas_key"] = account.sas
    elif account.key:
        options["account_key"] = account.key
    try:
        store = AzureStore(
            model.bucket,
            config=options,
            client_options=environment.client_options(account.endpoint),
            retry_config=ONCE,
        )
    except (BaseError, ValueError) as error:
        raise read_failure(error if isinstance(error, BaseError) else BaseError(str(error)), access) from error

    def checksums(etag: str) -> list[Checksum]:
        url = None
        if account.sas:
            base = account.endpoint or f"https://{account.name}.blob.core.windows.net"
            url = f"{base}/{model.bucket}/{quote(model.key)}?{account.sas}"
        return signed_headers(store, model.key, etag, environment, url=url)

    return OpenedStore(store=store, access=access, checksums=checksums)


def read_account(connection: Connection, named: str) -> Account:
    """Read the account out of a connection: keySecret is a SAS URL, as on the platform, or the key of account keyID.

    Raises:
        RequestError: The secret is neither, or is of another account than the location's.
    """
    secret = connection.spec.key_secret.get_secret_value().strip()
    name = connection.spec.key_id.get_secret_value() or named
    if not secret:
        return Account(name=name)
    if not secret.lower().startswith(("https://", "http://")):
        if not name:
            raise RequestError(
                f"connection {connection.id!r}: its keySecret is no SAS URL, and no keyID names the account",
                hint="write https://ACCOUNT.blob.core.windows.net/?SAS, or the account's name into keyID "
                "and its key into keySecret",
            )
        return Account(name=name, key=secret)
    parts = urlsplit(secret)
    host = parts.hostname or ""
    if parts.scheme == "http" and not is_loopback(host):
        raise RequestError(f"connection {connection.id!r}: its SAS URL is plain HTTP", hint="write https://...")
    if "sig=" not in parts.query:
        raise RequestError(
            f"connection {connection.id!r}: its keySecret is a URL without a signature",
            hint="write the whole SAS URL: https://ACCOUNT.blob.core.windows.net/?sv=...&sig=...",
        )
    public = ".blob.core." in host
    account = host.partition(".")[0] if public else parts.path.strip("/").partition("/")[0] or name
    if public and named and named != account:
        raise RequestError(
            f"connection {connection.id!r}: its SAS URL is of the account {account!r}, the location of {named!r}",
            hint="use the SAS URL of that account",
        )
    usual = public and host.endswith(".blob.core.windows.net")
    path = parts.path.rstrip("/") if not public else ""
    return Account(name=account, sas=parts.query, endpoint=None if usual else f"{parts.scheme}://{parts.netloc}{path}")
