"""Confinement of the checked model's process, as in a pod with a read-only root and an arbitrary uid.

Landlock (linux/landlock.h, docs.kernel.org/userspace-api/landlock.html) restricts writing to some folders, and a user
namespace gives the process a uid without a name. Both work without privileges, if the kernel and the container's
seccomp profile allow them. Child processes inherit both.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TEMPORARY_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108  (any container's)
_FILES_OF_THE_KERNEL = (Path("/dev"), Path("/proc"))  # existing files such as /dev/null and /proc/self/..., no new ones

_PR_SET_DUMPABLE = 4  # all of these: linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CAPABILITIES_VERSION_3 = 0x20080522
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_GET_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_MAKE_AND_REMOVE = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13  # renaming from one folder into another
_OLDEST_VERSION = 2  # the first with _REFER
_VERSION_WITH_TRUNCATE = 3

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The confinement of a process, entered before its program starts.

    Attributes:
        ruleset: The descriptor of Landlock's rules; None without Landlock in the kernel or the container.
        uid: The uid of the process; our own if that has no name either.
    """

    ruleset: int | None
    uid: int

    def protects(self, folder: Path) -> bool:
        """Return whether Landlock prevents all writing below a folder."""
        parents = folder.resolve().parents
        return self.ruleset is not None and not any(temporary.resolve() in parents for temporary in TEMPORARY_FOLDERS)

    def enter(self) -> None:
        """Confine this process, between fork and exec; skip what this machine doesn't support."""
        if self.uid != os.geteuid():
            self._become()
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        header = _CapabilityHeader(_CAPABILITIES_VERSION_3, 0)
        _libc.capset(ctypes.byref(header), (ctypes.c_uint32 * 6)())  # drop all capabilities
        if self.ruleset is not None:
            _libc.syscall(_RESTRICT_SELF, self.ruleset, 0)

    def _become(self) -> None:
        uid, gid = os.geteuid(), os.getegid()
        if _libc.unshare(_CLONE_NEWUSER) != 0:
            return
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise root owns /proc/self
        for name, line in (("uid_map", f"{self.uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            with suppress(OSError), open(f"/proc/self/{name}", "wb", 0) as file:  # noqa: PTH123
                file.write(line.encode())
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # until the program starts


@contextmanager
def confinement(writable: Sequence[Path], uid: int) -> Iterator[Confinement]:
    """Yield a confinement that allows writing only below `writable` and the temporary folders of any container.

    The process runs as `uid`, in the group root, unless our own uid has no name.
    """
    ruleset = _make_ruleset((*writable, *TEMPORARY_FOLDERS))
    try:
        yield Confinement(ruleset=ruleset, uid=uid if _has_name(os.geteuid()) else os.geteuid())
    finally:
        if ruleset is not None:
            os.close(ruleset)


def _make_ruleset(folders: Sequence[Path]) -> int | None:
    version = _libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < _OLDEST_VERSION:
        return None
    files = _WRITE_FILE | (_TRUNCATE if version >= _VERSION_WITH_TRUNCATE else 0)
    everything = files | _MAKE_AND_REMOVE | _REFER
    attributes = _RulesetAttributes(everything)
    ruleset: int = _libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return None
    allowed = {**dict.fromkeys(_FILES_OF_THE_KERNEL, files), **dict.fromkeys(folders, everything)}
    for folder, access in allowed.items():
        with suppress(OSError):  # no such folder
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = _PathBeneath(access, descriptor)
            _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            os.close(descriptor)
    return ruleset


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
