"""A PostgreSQL server on a free loopback port: Debian's, in a folder of its own, run by a user who isn't root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER = "postgres"  # the package makes it; the server refuses to run as root


@dataclass(frozen=True, kw_only=True)
class Postgres:
    port: int
    password: str

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database of its own and return its address."""
        name = f"packager_{secrets.token_hex(4)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)


def programs() -> Path:
    """Return the folder with the newest server's programs, which Debian keeps out of PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))


@contextmanager
def serve_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are nobody else's to enter
    process = None
    try:
        password = secrets.token_hex(12)
        (folder / "password").write_text(password)
        owner = pwd.getpwnam(_OWNER) if os.geteuid() == 0 else None
        if owner:
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        run_as: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
        words = ["--auth=scram-sha-256", "--username=postgres", f"--pwfile={folder / 'password'}", "--no-sync"]
        made = [str(programs() / "initdb"), "--encoding=UTF8", "--locale=C", *words, "-D", str(folder / "data")]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **run_as)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = [str(programs() / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", "", "-F"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*server, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"],
                stdout=log,
                stderr=log,
                cwd=folder,
                **run_as,
            )
        running = Postgres(port=port, password=password)
        _wait_for(running, folder / "log")
        yield running
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: Postgres, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:  # noqa: PERF203  (it is waited for)
            if time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL doesn't start: {log.read_text()}") from None
            time.sleep(0.1)
        else:
            return
