"""Environments in the cache folder: what was kept is used while it is whole, and what was used longest ago goes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from packager.environment.cache.local import LocalCache
from packager.image.plan import StoredLayer
from packager.models.image import Descriptor
from packager.models.reference import Reference
from packager.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = PurePosixPath("/opt/conda/envs/wine")
MEGABYTE = 1 << 20


def layer(number: int) -> StoredLayer:
    digest = f"sha256:{number:064x}"
    return StoredLayer(
        name="environment",
        descriptor=Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=digest, size=1),
        diff_id=digest,
        repository=Reference.parse("r.io/wine:1"),
    )


def environment(folder: Path, number: int) -> Path:
    root = folder / f"made-{number}"
    (root / "bin").mkdir(parents=True)
    (root / "bin/python").write_bytes(os.urandom(MEGABYTE))
    (root / "bin/python3").symlink_to("python")
    return root


@pytest.fixture
def environments(tmp_path: Path) -> LocalCache:
    return LocalCache(folder=tmp_path / "cache/environments", max_bytes=10 * MEGABYTE)


def save(environments: LocalCache, number: int, folder: Path) -> Path:
    root = environment(folder, number)
    environments.save(layer(number), PREFIX, root)
    return root


def used(environments: LocalCache, number: int, prefix: PurePosixPath = PREFIX) -> Path | None:
    with environments.use(layer(number), prefix) as root:
        return root


def test_a_kept_environment_is_moved_and_used(environments: LocalCache, tmp_path: Path) -> None:
    assert used(environments, 1) is None
    root = save(environments, 1, tmp_path)
    found = used(environments, 1)
    assert found is not None
    assert (found / "bin/python3").readlink() == Path("python")
    assert not root.exists()
    assert used(environments, 2) is None
    assert used(environments, 1, PREFIX / "other") is None


def _change(root: Path) -> None:
    before = (root / "bin/python").stat()
    (root / "bin/python").write_bytes(os.urandom(before.st_size))
    os.utime(root / "bin/python", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "damage",
    [
        _change,
        lambda root: (root / "bin/python3").unlink(),
        lambda root: (root / "bin/more").touch(),
        lambda root: (root.parent / "digest").write_text(""),
    ],
)
def test_an_environment_that_was_changed_is_not_used_and_kept_again(
    environments: LocalCache, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    save(environments, 1, tmp_path)
    found = used(environments, 1)
    assert found is not None
    damage(found)
    assert used(environments, 1) is None
    new = save(environments, 1, tmp_path)
    assert used(environments, 1) == found
    assert not new.exists()
    assert not (found / "bin/more").exists()


def test_what_was_not_used_for_longest_goes(environments: LocalCache, tmp_path: Path) -> None:
    limited = LocalCache(folder=environments.folder, max_bytes=int(2.5 * MEGABYTE))
    for number in (1, 2):
        save(limited, number, tmp_path)
        os.utime(_entry(limited, number), (number, number))
    assert used(limited, 1) is not None
    save(limited, 3, tmp_path)
    assert [used(limited, number) is not None for number in (1, 2, 3)] == [True, False, True]


def test_what_is_in_use_stays(environments: LocalCache, tmp_path: Path) -> None:
    limited = LocalCache(folder=environments.folder, max_bytes=int(1.5 * MEGABYTE))
    save(limited, 1, tmp_path)
    with limited.use(layer(1), PREFIX) as root:
        other = save(limited, 2, tmp_path)
        assert root is not None
        assert (root / "bin/python").exists()
        assert other.exists()
    assert used(limited, 2) is None
    limited.save(layer(2), PREFIX, other)
    assert [used(limited, number) is not None for number in (1, 2)] == [False, True]


def test_one_larger_than_the_limit_removes_no_other(environments: LocalCache, tmp_path: Path) -> None:
    limited = LocalCache(folder=environments.folder, max_bytes=int(1.5 * MEGABYTE))
    save(limited, 1, tmp_path)
    large = environment(tmp_path, 2)
    (large / "more").write_bytes(os.urandom(MEGABYTE))
    limited.save(layer(2), PREFIX, large)
    assert [used(limited, number) is not None for number in (1, 2)] == [True, False]


def test_as_much_of_the_disk_stays_free_as_is_taken(
    environments: LocalCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=MEGABYTE))
    save(environments, 1, tmp_path)
    assert used(environments, 1) is None


def test_a_killed_run_and_one_at_the_same_time(environments: LocalCache, tmp_path: Path) -> None:
    (environments.folder / ".unfinished/environment/bin").mkdir(parents=True)
    save(environments, 1, tmp_path)
    first = used(environments, 1)
    save(environments, 1, tmp_path)
    assert used(environments, 1) == first
    assert sorted(path.name for path in environments.folder.iterdir()) == sorted([_entry(environments, 1).name, "lock"])


def test_a_disk_that_is_full_meanwhile_is_no_failure(
    environments: LocalCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    root = save(environments, 1, tmp_path)
    assert (root / "bin/python").exists()
    assert [path.name for path in environments.folder.iterdir()] == ["lock"]


def test_a_folder_that_can_not_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environments = LocalCache(folder=tmp_path / "file/environments", max_bytes=MEGABYTE)
    root = save(environments, 1, tmp_path)
    assert root.exists()
    assert used(environments, 1) is None


@pytest.mark.parametrize("changes", [{"check": "never"}, {"check_cache_max_bytes": 0}])
def test_nothing_is_kept_where_nothing_is_checked_or_the_limit_is_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = Settings.model_validate({"cache_dir": tmp_path / "cache", **changes})
    environments = LocalCache.from_settings(settings)
    assert save(environments, 1, tmp_path).exists()
    assert not (tmp_path / "cache").exists()


def _entry(environments: LocalCache, number: int) -> Path:
    root = used(environments, number)
    assert root is not None
    return root.parent
