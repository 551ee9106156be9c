"""The docker `config.json` of programs that need one: private, current, and gone after the block."""

from __future__ import annotations

import errno
import stat
import threading
from pathlib import Path

import pytest

from packager.errors import DiskFullError, RegistryAuthError
from packager.models.reference import Reference
from packager.registry import authfile
from packager.registry.authfile import auth_file
from packager.registry.credentials import Credential
from packager.registry.docker_config import DockerConfig
from tests.unit.memory_registry import keychain_of
from tests.unit.registry.token_source import TokenSource

KEYCHAIN = keychain_of(Credential(host="r.io", username="u", password="p"))


def password_in(path: Path) -> str:
    login = DockerConfig.from_bytes(path.read_bytes()).login_for(Reference.parse("r.io/x"))
    return login.password if login else ""


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_file_is_private_and_removed_after_the_block(tmp_path: Path) -> None:
    with auth_file(KEYCHAIN, tmp_path) as path:
        assert path.name == "config.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert password_in(path) == "p"
    assert list(tmp_path.iterdir()) == []


def test_file_is_removed_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), auth_file(KEYCHAIN, tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskFullError, match="no space left"), auth_file(KEYCHAIN, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_login_that_lasts_starts_no_thread(tmp_path: Path) -> None:
    with auth_file(KEYCHAIN, tmp_path):
        assert "login-renewal" not in thread_names()


def test_expiring_login_is_renewed_in_the_file_until_the_block_ends(tmp_path: Path) -> None:
    source = TokenSource()
    renewed = threading.Event()
    seen = []

    def on_wait() -> bool:
        seen.append(password_in(path))
        if seen[-1] == "token-3":
            renewed.set()
        return renewed.is_set()

    source.on_wait = lambda: False
    keychain = source.keychain()
    with auth_file(keychain, tmp_path) as path:
        source.on_wait = on_wait
        assert renewed.wait(30)
        assert [file.name for file in path.parent.iterdir()] == ["config.json"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(dict.fromkeys(seen)) == ["token-1", "token-2", "token-3"]
    assert max(source.waits) == 60  # the clock is read often: a machine may sleep meanwhile
    assert "login-renewal" not in thread_names()


def test_renewal_goes_on_after_any_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = TokenSource()
    done, disk_is_full = threading.Event(), [True, True]
    replace = Path.replace

    def replace_unless_full(path: Path, target: Path) -> Path:
        if path.parent.parent == tmp_path and source.fetched == 2 and disk_is_full:
            disk_is_full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    def on_wait() -> bool:
        if password_in(path) == "token-2":
            done.set()
        return done.is_set()

    keychain = source.keychain()
    source.failures = [ValueError("a bug"), RegistryAuthError("denied")]
    with pytest.MonkeyPatch.context() as patch, auth_file(keychain, tmp_path) as path:
        patch.setattr(Path, "replace", replace_unless_full)
        source.on_wait = on_wait
        assert done.wait(30)
    assert source.fetched == 2  # the new token was fetched once, and written when there was space
    assert "the logins can't be renewed now: ValueError: a bug" in caplog.text
    assert "can't be renewed yet: denied" in caplog.text
    assert caplog.text.count("no space left") == 2


def test_renewal_that_hangs_delays_nothing_and_writes_nothing_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(authfile, "_JOIN_SECONDS", 0.01)
    source = TokenSource()
    keychain = source.keychain()
    asked, answered = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert answered.wait(30)

    source.on_fetch = hang
    with auth_file(keychain, tmp_path):
        assert asked.wait(30)
        thread = next(thread for thread in threading.enumerate() if thread.name == "login-renewal")
    assert thread.is_alive()
    source.on_wait = lambda: True
    answered.set()
    thread.join(30)
    assert not thread.is_alive()
    assert source.fetched == 2
    assert list(tmp_path.iterdir()) == []
    assert "can't be renewed" not in caplog.text  # nothing was tried in a folder that is gone


def test_expired_login_that_cannot_be_renewed_gives_no_file(tmp_path: Path) -> None:
    source = TokenSource()
    keychain = source.keychain()
    source.expire()
    source.failures = [RegistryAuthError("denied")]
    with pytest.raises(RegistryAuthError, match="denied"), auth_file(keychain, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
