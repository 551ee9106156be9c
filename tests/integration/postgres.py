"""A real PostgreSQL on this machine: the distribution's server on a free loopback port, with a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSWORD = "postgres-pass-word"


def programs() -> Path | None:
    """The folder of the newest version's programs, which the distribution puts beside the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def serve_postgres(folder: Path) -> Iterator[str]:
    """Run a server and give the address of its database, with a password in it."""
    place = programs()
    assert place is not None
    # It refuses to run as root.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    data, sockets, port = folder / "data", folder / "sockets", free_port()
    for path in (data, sockets):
        path.mkdir(mode=0o700)
    password = folder / "password"
    password.write_text(_PASSWORD)
    if user:
        for path in (data, sockets, password):
            shutil.chown(path, "postgres", "postgres")
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o001)  # so that it comes to its own folder
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    words = ["--username=packager", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", str(data)]
    subprocess.run([*user, str(place / "initdb"), *words], env=environ, cwd="/", check=True, capture_output=True)
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": sockets, "fsync": "off"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as output:
        server = subprocess.Popen(
            [*user, str(place / "postgres"), "-D", str(data), *options, "-c", "max_connections=300"],
            env=environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_up(place, port, server)
        yield f"postgresql://packager:{_PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # it waits for its clients on SIGTERM
            server.send_signal(3)
            server.wait(10)


def _wait_until_up(place: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    words = [str(place / "pg_isready"), "--host=127.0.0.1", f"--port={port}", "--quiet"]
    while subprocess.run(words, check=False).returncode:
        assert server.poll() is None, "the database has ended"
        assert time.monotonic() < deadline, "the database does not start"
        time.sleep(0.1)
