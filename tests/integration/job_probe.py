"""Run inside the Job image: `wipe` empties the root as Kaniko does, `build` has the executor build; then we live on.

What was seen goes to the termination log as JSON. Without the tests' packages: it has only what the image has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from packager.system.process import run_command

_KEPT = {"/kaniko", "/proc", "/dev", "/sys"}
_LATE = ("zoneinfo", "xml.dom.minidom", "boto3", "decimal", "ssl", "jinja2")


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def wipe() -> None:
    mounted = mounts()
    for path in Path("/").iterdir():
        if str(path) in _KEPT or any(f"{mount}/".startswith(f"{path}/") for mount in mounted):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def build(*words: str) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "SSL_CERT_FILE", "DOCKER_CONFIG")}
    done = run_command(["/kaniko/executor", *words], env=environ, on_line=print)
    if done.returncode:
        sys.exit(done.returncode)


def seen() -> dict[str, object]:
    before = [name for name in _LATE if name in sys.modules]
    for name in _LATE:
        __import__(name)
    programs = {
        "child": [sys.executable, "-c", "import asyncio; print(asyncio.__name__)"],
        "uv": ["/kaniko/python/bin/uv", "--version"],
        "packager": ["/kaniko/python/bin/packager", "settings"],
    }
    answers = {}
    for name, words in programs.items():
        answers[name] = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()[:100]
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "capabilities": int(status["CapEff"], 16),
        "no_new_privileges": status["NoNewPrivs"],
        "before": before,
        "root": sorted(path.name for path in Path("/").iterdir()),
        "loaders": [str(path) for path in Path("/").glob("lib*/ld-linux*")],
        "mounts": sorted(mounts()),
        **answers,
    }


def main() -> None:
    action, *words = sys.argv[1:]
    if action == "wipe":
        wipe()
    else:
        build(*words)
    Path("/dev/termination-log").write_text(json.dumps(seen()))


if __name__ == "__main__":
    main()
