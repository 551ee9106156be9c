"""The API service as a process of its own, on a free loopback port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from packager.api.identity.tokens import add_token
from tests.integration.plain_http import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "bWFkZSBmb3IgdGhlIHRlc3RzIG9mIHRoZSBzZXJ2aWM="
_LISTENING = re.compile(r"listening on (http://\S+)")


@dataclass(frozen=True, kw_only=True)
class ApiService:
    """A running service.

    Attributes:
        url: Where it listens.
        token, read_only: Bearer tokens.
        folder: Its data folder.
        log: What it wrote.
        process: The process.
    """

    url: str
    token: str
    read_only: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60, verify=PLAIN)


@contextmanager
def serve_api(folder: Path, environ: dict[str, str] | None = None, /, **settings: str) -> Iterator[ApiService]:
    """Start `packager api` with its data in a folder, in an environment; SIGTERM ends it, and it must end well."""
    folder.mkdir(exist_ok=True)
    tokens = folder / "tokens"
    token, read_only = add_token(tokens, "ann", may_write=True), add_token(tokens, "ben", may_write=False)
    own = {"LISTEN": "127.0.0.1:0", "DATA_DIR": str(folder), "TOKENS_FILE": str(tokens), **settings}
    environ = {
        **(environ or {"PATH": os.environ["PATH"]}),
        "HOME": str(folder),
        **{f"PACKAGER_API_{name}": value for name, value in own.items()},
    }
    log = folder / "log"
    program = Path(sys.executable).with_name("packager")
    with log.open("wb") as stream:
        process = subprocess.Popen([program, "api"], stdout=stream, stderr=stream, env=environ, cwd=folder)
    try:
        url = _address(process, log)
        yield ApiService(url=url, token=token, read_only=read_only, folder=folder, log=log, process=process)
    finally:
        process.terminate()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert code == 0, log.read_text()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while not (match := _LISTENING.search(log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the service doesn't start: {log.read_text()}")
        time.sleep(0.1)
    return match[1]
