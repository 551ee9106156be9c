"""A kubelet for one container: runs the pod of a rendered Job under podman, as exactly as podman can say it.

Of the Job's body are taken: the image, command, arguments, working directory, environment, every mount, the pod's and
the container's security context, and the place of the termination log. What it ends with is told as a pod's status.
"""

from __future__ import annotations

import base64
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.packaging import PODMAN, RUN_WORDS
from tests.integration.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Kubelet:
    """Runs pods on this machine.

    Attributes:
        folder: Where volumes are made.
        environ: With the container storage that has the image.
        secrets: From a Secret's name to its `data`.
        claims: From a claim's name to the folder that it stands for.
    """

    folder: Path
    environ: dict[str, str]
    secrets: Callable[[str], dict[str, str]]
    claims: dict[str, Path] = field(default_factory=dict)

    def run(self, job: dict[str, Any], on_line: Callable[[str], None]) -> tuple[int, str]:
        """Run the Job's pod; give its log line by line, return its exit code and termination message."""
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        log = self.folder / "termination-log"
        log.touch()
        log.chmod(0o666)  # as the kubelet makes it
        name = f"packager-rendered-{free_port()}"
        words = [*PODMAN, "run", "--rm", "--name", name, *RUN_WORDS, "--pull", "never"]
        words += _security(pod["securityContext"], container["securityContext"])
        words += ["--volume", f"{log}:{container['terminationMessagePath']}", "--workdir", container["workingDir"]]
        words += self._mounts(pod, container)
        for variable in container["env"]:
            words += ["--env", f"{variable['name']}={variable['value']}"]
        program, *first = container["command"]
        words += ["--entrypoint", program, container["image"], *first, *container["args"]]
        try:
            with subprocess.Popen(
                words,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                for line in process.stdout or ():
                    on_line(line.rstrip("\n"))
        finally:
            remove = [*PODMAN, "rm", "--force", "--ignore", "--time", "1", name]
            subprocess.run(remove, env=self.environ, check=False, capture_output=True)
        return process.returncode, log.read_text()

    def _mounts(self, pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
        group = pod["securityContext"].get("fsGroup", 0)
        places: dict[str, Path] = {volume["name"]: self._volume(volume, group) for volume in pod["volumes"]}
        words: list[str] = []
        for mount in container["volumeMounts"]:
            mode = "ro" if mount.get("readOnly") else "rw"
            words += ["--volume", f"{places[mount['name']]}:{mount['mountPath']}:{mode}"]
        return words

    def _volume(self, volume: dict[str, Any], group: int) -> Path:
        if claim := volume.get("persistentVolumeClaim"):
            return self.claims[str(claim["claimName"])]
        place = self.folder / "volumes" / str(volume["name"])
        place.mkdir(parents=True)
        os.chown(place, 0, group)
        if secret := volume.get("secret"):
            for name, value in self.secrets(secret["secretName"]).items():
                file = place / name
                file.write_bytes(base64.b64decode(value))
                os.chown(file, 0, group)
                # The kubelet lets a pod's group read what it owns.
                file.chmod(secret["defaultMode"] | (0o440 if group else 0))
            return place
        assert "emptyDir" in volume
        place.chmod(0o2777 if group else 0o777)
        return place


def _security(pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
    assert container["privileged"] is False
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}  # what podman does by itself
    capabilities = container["capabilities"]
    words = [f"--user={pod['runAsUser']}:{pod['runAsGroup']}"]
    words += [f"--cap-drop={name}" for name in capabilities["drop"]]
    words += [f"--cap-add={name}" for name in capabilities.get("add", ())]
    if container["allowPrivilegeEscalation"] is False:
        words.append("--security-opt=no-new-privileges")
    if container.get("readOnlyRootFilesystem"):
        words += ["--read-only", "--read-only-tmpfs=false"]
    if "fsGroup" in pod:
        words.append(f"--group-add={pod['fsGroup']}")
    return words
