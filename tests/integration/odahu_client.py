"""The public ODAHU client and SDK as they are published, in an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uv

if TYPE_CHECKING:
    from tests.integration.api_service import ApiService

VERSION = "1.6.1"
_CACHE = Path(os.environ.get("PACKAGER_TEST_CACHE", f"{tempfile.gettempdir()}/packager-test-cache-{os.getuid()}"))


def client_environment() -> Path:
    """Return the environment's folder; it is made once and kept."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = _CACHE / f"odahu-client-{VERSION}-{version}"
    if not wanted.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="odahu-client-", dir=_CACHE))
        program = uv.find_uv_bin()
        subprocess.run([program, "venv", "-q", "--relocatable", "--python", sys.executable, fresh / "env"], check=True)
        install = [program, "pip", "install", "-q", "--python", str(fresh / "env" / "bin" / "python")]
        subprocess.run([*install, f"odahu-flow-cli=={VERSION}"], check=True)
        (fresh / "env").rename(wanted)
        shutil.rmtree(fresh)
    return wanted


@dataclass(frozen=True, kw_only=True)
class OdahuClient:
    """`odahuflowctl`, logged in at a service, and a Python that has the SDK."""

    environment: Path
    home: Path
    service: ApiService

    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ODAHUFLOW_CONFIG": str(self.home / "odahuflow.cfg"),
            "NO_PROXY": "127.0.0.1",
        }

    def run(self, *words: str, code: int = 0, timeout: float = 120) -> str:
        """Run the client and return what it wrote."""
        ended = subprocess.run(
            [self.environment / "bin" / "odahuflowctl", *words],
            env=self.environ(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert ended.returncode == code, f"{words}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def python(self, program: str) -> str:
        """Run a program with the SDK and return what it wrote."""
        ended = subprocess.run(
            [self.environment / "bin" / "python", "-c", program],
            env={**self.environ(), "API_URL": self.service.url, "API_TOKEN": self.service.token},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout
