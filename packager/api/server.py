"""The uvicorn server, with our logging and shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from packager.api.application import create_app
from packager.api.identity import identity_from
from packager.api.runner import Runner
from packager.api.service import Service
from packager.api.store import open_store
from packager.api.store.encryption import SecretCipher, make_key_file, read_key_file
from packager.errors import UsageError
from packager.sources.stores.tls import authorities, ssl_context
from packager.system.proxies import ProxyTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from fastapi import FastAPI

    from packager.api.config import ApiSettings
    from packager.api.store.entity_repository import RegisterSecrets

log = logging.getLogger(__name__)

_BACKLOG = 1024


def open_service(settings: ApiSettings, ca_file: Path | None, register_secrets: RegisterSecrets) -> Service:
    """Open the database and create the identity; `register_secrets` redacts connection secrets in the log.

    Raises:
        UsageError: A setting, the key or the token file is invalid.
        DatabaseError: The database is unreachable.
    """
    transport = ProxyTransport(ssl_context(authorities(ca_file, os.environ)))
    identity = identity_from(settings, transport)
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        url = f"sqlite:///{_own_folder(settings.data_dir).resolve() / 'packager.db'}"
    store = open_store(url, cipher_from(settings), register_secrets)
    return Service(settings=settings, store=store, identity=identity)


def cipher_from(settings: ApiSettings) -> SecretCipher:
    """Create the cipher with the configured keys, else with the key file of the embedded database.

    Raises:
        UsageError: A key is missing or invalid.
    """
    if settings.key is not None:
        return SecretCipher(settings.key.get_secret_value().replace(",", " ").split(), "PACKAGER_API_KEY")
    if settings.key_file is not None:
        return read_key_file(settings.key_file)
    if settings.database_url is not None:
        raise UsageError(
            "no encryption key for the database of PACKAGER_API_DATABASE_URL",
            hint="set PACKAGER_API_KEY or PACKAGER_API_KEY_FILE, to the same key for every replica; create one with: "
            "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'",
        )
    own = _own_folder(settings.data_dir) / "key"
    return read_key_file(own) if own.exists() else make_key_file(own)


def _own_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {folder}: {error.strerror}",
            hint="set PACKAGER_API_DATA_DIR to a writable folder",
        ) from error
    return folder


def serve(service: Service) -> None:
    """Serve requests until SIGINT or SIGTERM.

    Raises:
        UsageError: The address is unusable, or the executor's settings are.
    """
    settings = service.settings
    with open_listener(settings) as listener:
        runner = Runner.from_settings(settings, service.store.runs, os.environ)
        host, port = listener.getsockname()[:2]
        log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        if not settings.has_identity:
            log.warning(
                "authentication is off: every client has full access; set PACKAGER_API_TOKENS_FILE to require tokens"
            )
        _Server(_configuration(create_app(service, runner), settings), runner).run(sockets=[listener])
    log.info("stopped")


def _configuration(app: FastAPI, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=log.isEnabledFor(logging.DEBUG),
        timeout_graceful_shutdown=int(max(settings.stop_seconds, 1)),
        server_header=False,
        proxy_headers=False,
        lifespan="on",
    )


@contextmanager
def open_listener(settings: ApiSettings) -> Iterator[socket.socket]:
    """Open the listening socket.

    Raises:
        UsageError: The address is unusable.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
        # The kernel closes the connection of a client that has read nothing for this long (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.log_stall_seconds * 1000))
        # asyncio sets it only for sockets created with a protocol number. Without it, the second part of a response
        # waits for the acknowledgement of the first, about 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.listen}: {error.strerror or error}",
            hint="give a free HOST:PORT of this machine with --listen",
        ) from error
    with listener:
        yield listener


class _Threads(ThreadPoolExecutor):
    """The thread pool of the event loop; its shutdown does not wait for hanging threads."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Reject new work, without waiting."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class _Server(uvicorn.Server):
    """Exits normally after a signal; uvicorn would raise the signal again and end with a failure."""

    def __init__(self, config: uvicorn.Config, runner: Runner) -> None:
        """Serve an application, and stop the runner first at the shutdown."""
        super().__init__(config)
        self._runner = runner

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve requests until a signal."""
        asyncio.get_running_loop().set_default_executor(_Threads())
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the log streams, which may outlast the grace period, then everything else."""
        self._runner.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping after %s", signal.Signals(number).name)
        self.should_exit = True
