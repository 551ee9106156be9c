"""What a process needs besides its program: standard variables and folders, open files, and an end that is certain."""

from __future__ import annotations

import atexit
import os
import pwd
import resource
import stat
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import MutableMapping, NoReturn, Optional

TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
MEMORY_FOLDER = "/dev/shm"  # noqa: S108
_USER_NAME = "user"  # without an entry in /etc/passwd
_HOME = "/"  # the default of containers
_ADVICE = "mount a writable volume at /tmp (an emptyDir in Kubernetes)"
_SPARE_FILES = 64  # descriptors for listeners, logs and files of the model
_MIN_CONNECTIONS = 8


def complete_environment(environ: MutableMapping[str, str]) -> str:
    """Set TMPDIR, HOME, XDG_CACHE_HOME, USER and LOGNAME where they are missing or name a folder that can't be written.

    A container may run as any user, without an entry in /etc/passwd, and with a read-only root file system.

    Returns: a warning for the log; empty if a folder on a disk can be written.
    """
    _set_user(environ)
    temporary = _first_writable(environ.get("TMPDIR"), *TEMPORARY_FOLDERS, environ.get("HOME"))
    if temporary is None:
        if not environ.get("HOME"):
            environ["HOME"] = _HOME
        return f"No folder can be written, not even /tmp or /dev/shm: code that needs one fails; {_ADVICE}"
    environ["TMPDIR"] = temporary
    home = environ.get("HOME")
    if _first_writable(home) is None:
        home = environ["HOME"] = _private_folder(temporary)
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(str(home), ".cache")
    if not _can_be_made(cache):
        cache = os.path.join(_private_folder(temporary), ".cache")
    environ["XDG_CACHE_HOME"] = cache
    if temporary == MEMORY_FOLDER:
        return f"Temporary files and caches are kept in memory (/dev/shm), as /tmp can't be written; {_ADVICE}"
    return ""


def _set_user(environ: MutableMapping[str, str]) -> None:
    name = environ.get("LOGNAME") or environ.get("USER")
    if not name:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = _USER_NAME
    for variable in ("USER", "LOGNAME"):
        if not environ.get(variable):
            environ[variable] = name


def _first_writable(*folders: Optional[str]) -> Optional[str]:
    return next((folder for folder in folders if folder and os.path.isabs(folder) and _is_writable(folder)), None)


def _is_writable(folder: str) -> bool:
    """Whether a file can be created in it: permissions don't show a read-only file system."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _can_be_made(folder: str) -> bool:
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError:
        return False
    return _first_writable(folder) is not None


def _private_folder(temporary: str) -> str:
    """Return a private folder of this user; it is the same at the next start, so that caches outlive a container."""
    folder = os.path.join(temporary, f"home-{os.geteuid()}")
    with suppress(OSError):
        os.mkdir(folder, 0o700)
    with suppress(OSError):
        status = os.lstat(folder)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and _is_writable(folder):
            return folder
    return tempfile.mkdtemp(prefix="home-", dir=temporary)


def raise_file_limit() -> None:
    """Raise the limit of open files to the maximum for this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_connections(most: int) -> int:
    """Return how many connections a worker may accept at once: up to `most`, limited by the file descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(_MIN_CONNECTIONS, min(most, soft - _SPARE_FILES))


def open_standard_files() -> None:
    """Open the file descriptors 0, 1 and 2 if they are closed: else another file would get the number, and our output.

    Writing to a closed standard output still fails, so that no output is lost silently.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203
            os.open(os.devnull, mode)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def exit_after_hooks(code: int) -> NoReturn:
    """Exit after the atexit hooks, without waiting for threads."""
    atexit._run_exitfuncs()  # noqa: SLF001  (Python's own exit waits for threads first)
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """Exit at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    os._exit(code)
