"""Serving: uvicorn with our log and our way to stop."""

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
    from packager.api.store.entity_repository import Learn

log = logging.getLogger(__name__)

_BACKLOG = 1024


def open_service(settings: ApiSettings, ca_file: Path | None, learn: Learn) -> Service:
    """Open the database and set up who may call; `learn` keeps the secrets of connections out of the log.

    Raises:
        UsageError: A setting, the key or the token file is wrong.
        DatabaseError: The database can't be reached.
    """
    transport = ProxyTransport(ssl_context(authorities(ca_file, os.environ)))
    identity = identity_from(settings, transport)
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        url = f"sqlite:///{_own_folder(settings.data_dir).resolve() / 'packager.db'}"
    return Service(settings=settings, store=open_store(url, find_sealer(settings), learn), identity=identity)


def find_sealer(settings: ApiSettings) -> SecretCipher:
    """Return what seals the secrets: the key of the settings, else the embedded database's own one.

    Raises:
        UsageError: There is no key, or it is none.
    """
    if settings.key is not None:
        return SecretCipher(settings.key.get_secret_value().replace(",", " ").split(), "PACKAGER_API_KEY")
    if settings.key_file is not None:
        return read_key_file(settings.key_file)
    if settings.database_url is not None:
        raise UsageError(
            "there is no key for the secrets in the database of PACKAGER_API_DATABASE_URL",
            hint="give one in PACKAGER_API_KEY or PACKAGER_API_KEY_FILE, the same for every replica; make one by: "
            "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'",
        )
    own = _own_folder(settings.data_dir) / "key"
    return read_key_file(own) if own.exists() else make_key_file(own)


def _own_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"the folder {folder} can't be made: {error.strerror}",
            hint="set PACKAGER_API_DATA_DIR to a folder that can be written",
        ) from error
    return folder


def serve(service: Service) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Raises:
        UsageError: The address can't be listened on, or packagings can't be run as it is set.
    """
    settings = service.settings
    with _listening(settings) as listener:
        runner = Runner.from_settings(settings, service.store.runs, os.environ)
        host, port = listener.getsockname()[:2]
        log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        if not settings.has_identity:
            log.warning("whoever reaches this address may do everything; PACKAGER_API_TOKENS_FILE asks for tokens")
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
def _listening(settings: ApiSettings) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
        # Whoever reads nothing for so long is cut off by the kernel, and what is held for it freed (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.log_stall_seconds * 1000))
        # asyncio sets it only where a socket was made with its protocol's number; else the second part of an answer
        # waits for the acknowledgement of the first: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise UsageError(
            f"can't listen on {settings.listen}: {error.strerror or error}",
            hint="give a free HOST:PORT of this machine with --listen",
        ) from error
    with listener:
        yield listener


class _Threads(ThreadPoolExecutor):
    """The event loop's threads; what is stuck in one holds up the end of the loop no more than of the process."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Begin nothing more, and wait for nothing."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class _Server(uvicorn.Server):
    """Uvicorn sends itself the signal again when it has stopped, which would make a failure of a stop on demand."""

    def __init__(self, config: uvicorn.Config, runner: Runner) -> None:
        """Serve, and tell what runs packagings when it is to end."""
        super().__init__(config)
        self._runner = runner

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until a signal comes."""
        asyncio.get_running_loop().set_default_executor(_Threads())
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the logs that are followed, which would last longer than requests may, and then all else."""
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
