"""Run a registry and the API service on loopback, package a model through it, and keep both up till Ctrl-C.

python local/demo.py ARCHIVE BASE HOST:PORT      BASE: an image in Buildah's storage; port 0 takes a free one

Whatever ends it ends what it started; the folder of registry and service goes as well.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from packager import __version__
from packager.api.executors.run_folder import RunFolder
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]
ID = "wine"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
LISTENING = re.compile(r"listening on (http://\S+)")


class DemoError(Exception):
    """Something didn't go as it should."""


def start(words: list[str], log: Path, environ: dict[str, str], stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C is for us alone; it ends with the stack."""
    with log.open("wb") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=stream, env=environ, start_new_session=True)
    stack.callback(stop, process)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program, by force when it takes long."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def waiting(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Give a turn every moment till the time to start is over, or the program has ended."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        yield
        time.sleep(0.1)
    raise DemoError(f"{process.args!r} doesn't start:\n{log.read_text()}")


def serve_registry(folder: Path, stack: ExitStack) -> str:
    """Run a registry and return its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config, log = folder / "registry.yml", folder / "registry.log"
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}}
    # YAML holds JSON.
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": host}}))
    process = start(["docker-registry", "serve", str(config)], log, dict(os.environ), stack)
    for _ in waiting(process, log):
        with suppress(httpx.TransportError):
            if httpx.get(f"http://{host}/v2/", trust_env=False).is_success:
                break
    return host


def serve_api(folder: Path, models: Path, listen: str, stack: ExitStack) -> str:
    """Run the service and return its address; the runs that it has started end before it does."""
    own = {"LISTEN": listen, "DATA_DIR": str(folder), "MODELS_DIR": str(models), "ENGINE": "oci"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_API_")}
    environ |= {f"PACKAGER_API_{name}": value for name, value in own.items()}
    log = folder / "service.log"
    process = start([str(Path(sys.executable).with_name("packager")), "api"], log, environ, stack)
    for _ in waiting(process, log):
        if match := LISTENING.search(log.read_text()):
            stack.callback(end_runs, match[1], folder / "runs")
            for _ in waiting(process, log):
                with suppress(httpx.TransportError):
                    if httpx.get(f"{match[1]}/ready", trust_env=False).is_success:
                        return match[1]
    raise AssertionError  # `waiting` raises


def end_runs(url: str, folder: Path) -> None:
    """Delete every packaging, and return when none of them is at work: runs outlive their service."""
    with suppress(httpx.HTTPError), client_of(url) as client:
        for each in client.get("/model/packaging").json():
            client.delete(f"/model/packaging/{each['id']}")
    deadline = time.monotonic() + STOP_SECONDS
    runs = [RunFolder(path) for path in folder.glob("*") if path.is_dir()]
    while any(run.is_held() for run in runs) and time.monotonic() < deadline:
        time.sleep(0.1)


def client_of(url: str) -> httpx.Client:
    """Return a client of the service."""
    return httpx.Client(base_url=f"{url}/api/v1", trust_env=False, timeout=30)


def create(client: httpx.Client, path: str, document: dict[str, Any]) -> None:
    """Create an entity."""
    answer = client.post(path, json=document)
    if not answer.is_success:
        raise DemoError(f"POST {path}: {answer.status_code} {answer.text}")


def package(client: httpx.Client, archive: Path, registry: str) -> dict[str, Any]:
    """Package the model through the API, print the log as it's written, and return what became of it."""
    connection = {"type": "docker", "uri": f"{registry}/models", "description": "The demo's registry."}
    create(client, "/connection", {"id": "registry", "spec": connection})
    for application in INTEGRATION_TYPES.values():
        document = integration_document(application, f"packager:{__version__}")
        create(client, "/packaging/integration", {"id": document["id"], "spec": document["spec"]})
    spec = {
        "integrationName": "docker-rest",
        "artifactName": archive.name,
        "arguments": {"dockerfileBaseImage": f"{registry}/base:latest", "imageName": "{{ Name }}:{{ Version }}"},
        "targets": [{"name": "docker-push", "connectionName": "registry"}],
    }
    create(client, "/model/packaging", {"id": ID, "spec": spec})
    with client.stream("GET", f"/model/packaging/{ID}/log", params={"follow": "true"}, timeout=None) as lines:
        for line in lines.iter_lines():
            print(f"  {line}", flush=True)
    while (status := client.get(f"/model/packaging/{ID}").json()["status"])["state"] in ("", "scheduling", "running"):
        time.sleep(0.5)
    if status["state"] != "succeeded":
        raise DemoError(f"the packaging has {status['state']}: {status.get('message', '')}")
    return {each["name"]: each["value"] for each in status["results"]}


def run(archive: Path, base: str, listen: str) -> None:
    """Run it all; returns only by an exception."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="packager-demo-")))
        registry = serve_registry(folder, stack)
        print(f"Pushing the base image to the registry {registry} ...", flush=True)
        push = ["buildah", "push", "--quiet", "--tls-verify=false", base, f"docker://{registry}/base:latest"]
        subprocess.run(push, check=True, stdout=subprocess.DEVNULL)
        url = serve_api(folder, archive.parent.resolve(), listen, stack)
        print(f"The service's page: {url}/\n\nPackaging {archive} through its API:\n", flush=True)
        with client_of(url) as client:
            image = package(client, archive, registry)["imageDigest"]
        environ = {**os.environ, "BASE": base, "MODEL": str(archive), "PACKAGER": "docker-rest", "ARGS": ""}
        subprocess.run([PROJECT / "local/how_to_run.sh", image], check=True, env=environ)
        print(f"\nThe service's page: {url}/\nSwagger UI:         {url}/swagger/index.html\n", flush=True)
        print("Ctrl-C ends the service and the registry, and removes their data.", flush=True)
        signal.pause()


def interrupt(number: int, _frame: object) -> None:
    """End with that signal's exit code; once is enough, so that nothing interrupts the end."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    print("\nStopping ...", flush=True)
    raise SystemExit(128 + number)


def main() -> None:
    """Read the command line, and say what went wrong in a sentence."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        run(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    except SystemExit:
        print("Stopped; nothing is left of it.", flush=True)
        raise
    except (DemoError, subprocess.CalledProcessError, httpx.HTTPError) as error:
        sys.exit(f"the demo failed: {error}")


if __name__ == "__main__":
    main()
