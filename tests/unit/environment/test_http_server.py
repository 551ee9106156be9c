from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from packager.environment.http_server import choose_server, fetch_granian
from packager.errors import ChannelError, DependenciesError
from packager.logs.progress import SilentReporter
from packager.settings import Settings

if TYPE_CHECKING:
    from packager.environment.http_server import HttpServer


@pytest.mark.parametrize(
    ("wanted", "python", "chosen"),
    [
        ("auto", "3.8", "gunicorn"),
        ("auto", "3.9", "gunicorn"),
        ("auto", "3.10", "granian"),
        ("auto", "3.13", "granian"),
        ("auto", "3.99", "gunicorn"),
        ("auto", "", "gunicorn"),
        ("gunicorn", "3.12", "gunicorn"),
        ("granian", "3.12", "granian"),
    ],
)
def test_choice(wanted: Any, python: str, chosen: str) -> None:
    assert choose_server(wanted, python) == chosen


@pytest.mark.parametrize(("python", "said"), [("3.9", "the image has 3.9"), ("", "an unknown version")])
def test_granian_where_there_is_none(python: str, said: str) -> None:
    with pytest.raises(DependenciesError, match=said) as caught:
        choose_server("granian", python)
    assert "PACKAGER_SERVER=auto" in str(caught.value.hint)


class Uv:
    """What uv leaves behind, or says."""

    def __init__(self, output: str = "") -> None:
        self.output = output
        self.calls: list[list[str]] = []
        self.requirements = ""

    def __call__(self, argv: Any, **_: Any) -> Any:
        self.calls.append(list(map(str, argv)))
        self.requirements = Path(self.after("--requirement")).read_text()
        folder = Path(self.after("--target"))
        if not self.output:
            for name in ("granian/_granian.cpython-311-x86_64-linux-gnu.so", "granian/wsgi.py", "orjson/orjson.so"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(name)

        class Done:
            returncode = int(bool(self.output))
            output = self.output

        return Done()

    def after(self, option: str) -> str:
        return self.calls[-1][self.calls[-1].index(option) + 1]


def fetch(uv: Uv, folder: Path) -> HttpServer:
    return fetch_granian(
        "3.11",
        workspace=folder,
        settings=Settings(cache_dir=folder / "cache", platform="linux-aarch64"),
        run=uv,
        reporter=SilentReporter(),
        environ={},
    )


def test_granian_is_fetched_once_for_the_images_python(tmp_path: Path) -> None:
    uv = Uv()
    server = fetch(uv, tmp_path)
    assert uv.after("--python-version") == "3.11"
    assert uv.after("--python-platform") == "aarch64-manylinux_2_17"
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(uv.calls[0])
    granian, orjson = uv.requirements.splitlines()
    assert granian.startswith(f"granian=={server.version} ")
    assert orjson.startswith("orjson==")
    assert "--hash=sha256:" in granian
    assert "--hash=sha256:" in orjson
    assert server.vendor is not None
    kept = sorted(path.name for path in server.vendor.rglob("*.*"))
    assert kept == ["_granian.cpython-311-x86_64-linux-gnu.so", "orjson.so"]
    assert fetch(uv, tmp_path) == server
    assert len(uv.calls) == 1


def test_an_index_that_does_not_answer_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="cannot fetch the image's HTTP server") as caught:
        fetch(Uv("error: Failed to fetch: `https://index.example/simple/granian/`"), tmp_path)
    assert "PACKAGER_SERVER=gunicorn" in str(caught.value.hint)
    assert not list((tmp_path / "cache" / "server").iterdir())
