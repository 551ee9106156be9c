"""The manifests of packagings: valid by the schemas of Kubernetes, and compliant with Pod Security."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from pydantic import ValidationError
from typer.testing import CliRunner

from packager.cli import app
from packager.errors import RequestError, UsageError, exit_codes
from packager.kube.job import RETRIED_CODES, JobRequest, failure_rules, render_job, render_secret
from packager.kube.job_settings import ContainerResources, JobSettings
from packager.kube.names import ENGINE
from packager.models.documents import read_packaging_manifest
from packager.models.integrations import APPLICATIONS
from packager.models.integrations.schema import integration
from packager.models.packaging import PackagingManifest
from packager.models.resources import Resources
from tests.unit.builders import REGISTRY

OLDEST, *_, NEWEST = all_versions()
STORE = {"type": "s3", "uri": "s3://models/prefix", "keyID": "the-key-id", "keySecret": "the-key-secret"}
FULL_SETTINGS = JobSettings(
    image="registry.example/packager:1",
    image_pull_policy="IfNotPresent",
    image_pull_secrets=("pull",),
    service_account_name="packager-job",
    node_selector={"disk": "ssd"},
    tolerations=({"key": "build", "operator": "Exists", "effect": "NoSchedule"},),
    priority_class_name="low",
    cache_claim="cache",
    env={"HTTPS_PROXY": "http://proxy:3128"},
    env_from_secrets=("channels",),
    labels={"kueue.x-k8s.io/queue-name": "team"},
    annotations={"example.org/cost": "42"},
)


def check(body: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(body, version, strict=True)


def request(settings: JobSettings | None = None, *, holder: bool = True, **spec: Any) -> JobRequest:
    entity = integration(APPLICATIONS["docker-rest"], "packager:1")
    entity["spec"] |= spec.pop("integration", {})
    document = {
        "modelPackaging": {
            "id": spec.pop("id", "wine"),
            "spec": {"integrationName": "docker-rest", "artifactName": "wine-1.0.zip", **spec},
        },
        "packagingIntegration": entity,
        "targets": [{"name": "docker-push", "connection": {"id": "registry", "spec": REGISTRY}}],
        "modelHolder": {"id": "models", "spec": STORE} if holder else None,
        "trainingZipName": "wine-1.0.zip",
    }
    manifest = PackagingManifest.model_validate(document)
    return JobRequest(manifest=manifest, settings=settings or JobSettings(), namespace="ml")


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return container


REQUESTS = {
    "plain": request(),
    "oci": request(JobSettings(engine="oci")),
    "everything": request(
        FULL_SETTINGS,
        resources={"limits": {"cpu": 1, "memory": "1Gi", "gpu": 1}, "requests": {"cpu": 0.5}},
        nodeSelector={"zone": "a"},
        image="registry.example/own:1",
    ),
    "claim": request(JobSettings(model_claim="models"), holder=False),
}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", REQUESTS)
def test_manifests_are_valid_in_the_oldest_and_the_newest_kubernetes(name: str, version: str) -> None:
    assert OLDEST != NEWEST
    for body in (render_job(REQUESTS[name]), render_secret(REQUESTS[name], job_uid="uid-1")):
        check(body, version)


def test_invalid_manifest_is_refused_by_the_schemas() -> None:
    body = render_job(request())
    body["spec"]["template"]["spec"]["containers"][0]["capabilities"] = ["ALL"]
    with pytest.raises(kubernetes_validate.ValidationError):
        check(body, NEWEST)


# kubernetes.io/docs/concepts/security/pod-security-standards, of 1.37: what each level's rules ask of a Linux pod.
Rule = Callable[[dict[str, Any], dict[str, Any]], bool]  # of the pod's spec and its container's securityContext
BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
BASELINE: dict[str, Rule] = {
    "host namespaces": lambda pod, _: not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "privileged containers": lambda _, own: not own.get("privileged"),
    "capabilities": lambda _, own: BASELINE_CAPABILITIES.issuperset(own["capabilities"].get("add", [])),
    "hostPath volumes": lambda pod, _: not any("hostPath" in volume for volume in pod["volumes"]),
    "host ports": lambda pod, _: not any(each.get("ports") for each in pod["containers"]),
    "host probes": lambda pod, _: not any(key.endswith("Probe") for each in pod["containers"] for key in each),
    "AppArmor": lambda pod, own: not {"appArmorProfile"} & ({*pod["securityContext"]} | {*own}),
    "SELinux": lambda pod, own: not {"seLinuxOptions"} & ({*pod["securityContext"]} | {*own}),
    "proc mount": lambda _, own: own.get("procMount", "Default") == "Default",
    "seccomp": lambda pod, own: "Unconfined" not in json.dumps([pod["securityContext"], own]),
    "sysctls": lambda pod, _: not pod["securityContext"].get("sysctls"),
}
RESTRICTED: dict[str, Rule] = {
    **BASELINE,
    "volume types": lambda pod, _: all(
        RESTRICTED_VOLUMES.issuperset({*volume} - {"name"}) for volume in pod["volumes"]
    ),
    "privilege escalation": lambda _, own: own.get("allowPrivilegeEscalation") is False,
    "running as non-root": lambda pod, _: pod["securityContext"].get("runAsNonRoot") is True,
    "running as non-root user": lambda pod, own: (
        pod["securityContext"].get("runAsUser") != 0 and own.get("runAsUser") != 0
    ),
    "seccomp (restricted)": lambda pod, _: pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
    "capabilities (restricted)": lambda _, own: own["capabilities"] == {"drop": ["ALL"]},
}


@pytest.mark.parametrize("rule", RESTRICTED)
def test_an_oci_pod_keeps_each_rule_of_the_restricted_level(rule: str) -> None:
    settings = FULL_SETTINGS.model_copy(update={"engine": "oci", "model_claim": "models"})
    job = render_job(request(settings, holder=False))
    assert RESTRICTED[rule](job["spec"]["template"]["spec"], container_of(job)["securityContext"])


@pytest.mark.parametrize("rule", BASELINE)
def test_a_kaniko_pod_keeps_each_rule_of_the_baseline_level(rule: str) -> None:
    job = render_job(request(FULL_SETTINGS))
    assert BASELINE[rule](job["spec"]["template"]["spec"], container_of(job)["securityContext"])


def test_oci_pod_has_a_read_only_root_and_its_user_can_read_the_secret() -> None:
    job = render_job(request(JobSettings(engine="oci")))
    pod = job["spec"]["template"]["spec"]
    assert container_of(job)["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] != 0


@pytest.mark.parametrize(
    ("arguments", "setting", "engine"),
    [
        ({}, "auto", "oci"),
        ({"dockerfileAddCondaInstallation": True}, "auto", "oci"),
        ({"dockerfileAddCondaInstallation": False}, "auto", "kaniko"),
        ({"dockerfileAddCondaInstallation": "false"}, "auto", "kaniko"),
        ({"dockerfileAddCondaInstallation": False}, "oci", "oci"),
        ({}, "kaniko", "kaniko"),
    ],
)
def test_auto_selects_kaniko_for_builds_with_a_run_step(arguments: dict[str, Any], setting: Any, engine: str) -> None:
    job = render_job(request(JobSettings(engine=setting), arguments=arguments))
    assert container_of(job)["args"][-1] == engine
    assert ("add" in container_of(job)["securityContext"]["capabilities"]) is (engine == "kaniko")
    assert job["metadata"]["labels"][ENGINE] == engine


def test_kaniko_gets_exactly_seven_capabilities() -> None:
    job = render_job(request(JobSettings(engine="kaniko")))
    own = container_of(job)["securityContext"]
    assert own == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {
            "drop": ["ALL"],
            "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL"],
        },
    }
    assert job["spec"]["template"]["spec"]["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_pod_has_no_service_account_token() -> None:
    pod = render_job(request(FULL_SETTINGS))["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_failures_that_a_user_must_fix_are_not_retried() -> None:
    ignored, final = failure_rules()
    assert ignored == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    values = final["onExitCodes"]["values"]
    assert values == [*sorted({code for code in exit_codes() if 0 < code < 60} - RETRIED_CODES), 137]
    assert {2, 10, 12, 21, 31, 42, 50} < {*values}
    assert not {22, 30, 32, 143} & {*values}
    assert final["onExitCodes"]["containerName"] == container_of(render_job(request()))["name"]


def test_secret_is_owned_by_its_job_and_holds_the_manifest(tmp_path: Any) -> None:
    wanted = request()
    job, secret = render_job(wanted), render_secret(wanted, job_uid="uid-1")
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", "wine", "uid-1")
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["packaging"]["secret"]["secretName"] == secret["metadata"]["name"]
    (tmp_path / "mp.json").write_text(secret["stringData"]["mp.json"])
    read = read_packaging_manifest(tmp_path / "mp.json")
    assert read == wanted.manifest
    assert {"pass-word", "the-key-id", "the-key-secret"} == {*read.secrets()}


def test_job_contains_no_credentials() -> None:
    text = json.dumps(render_job(request()))
    assert not any(secret in text for secret in ("pass-word", "the-key-id", "the-key-secret"))


def test_model_is_read_from_the_store_or_from_a_volume() -> None:
    assert container_of(render_job(request()))["args"] == ["/kaniko/packaging/mp.json", "--engine", "oci"]
    job = render_job(request(JobSettings(model_claim="models"), holder=False, artifactName="a/wine.zip"))
    assert container_of(job)["args"][0] == "/kaniko/model/a/wine.zip"
    mounts = {mount["name"]: mount for mount in container_of(job)["volumeMounts"]}
    assert mounts["model"] == {"name": "model", "mountPath": "/kaniko/model", "readOnly": True}


@pytest.mark.parametrize("name", ["../wine.zip", "/etc/passwd", ""])
def test_model_outside_its_volume_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="artifactName"):
        render_job(request(JobSettings(model_claim="models"), holder=False, artifactName=name))


def test_packaging_overrides_the_job_settings() -> None:
    job = render_job(REQUESTS["everything"])
    pod, own = job["spec"]["template"]["spec"], container_of(job)
    assert own["image"] == "registry.example/own:1"
    assert own["resources"] == {
        "requests": {"ephemeral-storage": "20Gi", "cpu": "0.5"},
        "limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"},
    }
    assert pod["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "suspend" not in job["spec"]  # left to a queue


@pytest.mark.parametrize(
    "invalid",
    [{"id": ""}, {"integrationName": "Docker REST"}, {"integration": {"privileged": True}}, {"holder": False}],
)
def test_packaging_that_no_job_can_run_is_refused(invalid: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        render_job(request(**invalid))


def test_all_invalid_job_settings_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        JobSettings.from_yaml("engine: docker\nretries: 3\nworkSize: much\n", "the settings")
    assert all(word in caught.value.message for word in ("engine", "retries", "workSize"))


PACKAGING = """
id: wine-rest
spec:
  integrationName: docker-rest
  artifactName: wine-1.0.zip
  outputConnection: models
  targets: [{name: docker-push, connectionName: registry}]
---
kind: Connection
id: registry
spec: {type: docker, uri: gcr.io/project, username: ann, password: cGFzcy13b3Jk}
---
kind: Connection
id: models
spec: {type: s3, uri: "s3://models"}
"""


def test_pack_render_prints_job_and_secret(tmp_path: Any) -> None:
    path = tmp_path / "pack.yaml"
    path.write_text(PACKAGING)
    words = ["pack", "render", "-f", str(path), "--engine", "oci", "-n", "ml", "--artifact-name", "wine-2.0.zip"]
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0, printed.stderr
    job, secret = yaml.safe_load_all(printed.stdout)
    assert job["metadata"]["namespace"] == "ml"
    assert job["metadata"]["annotations"]["packager.odahu.org/artifact"] == "wine-2.0.zip"
    assert secret["stringData"] == {"mp.json": "*****"}
    assert "pass-word" not in printed.output
    bodies = json.loads(CliRunner().invoke(app, [*words, "-o", "json", "--with-secrets"]).stdout)["items"]
    assert bodies[0] == job
    assert json.loads(bodies[1]["stringData"]["mp.json"])["targets"][0]["connection"]["spec"]["password"] == "pass-word"


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (("registry}]", "nowhere}]"), "'nowhere'"),
        (("outputConnection: models", "outputConnection: none"), "'none'"),
        (("docker-rest", "docker-nothing"), "'docker-nothing'"),
        (("artifactName: wine-1.0.zip", "arguments: {workers: many}"), "artifactName"),
        (("artifactName: wine-1.0.zip", "artifactName: x\n  arguments: {workers: many}"), "workers"),
        ((PACKAGING.partition("---")[0], ""), "ModelPackaging"),
    ],
)
def test_invalid_packaging_is_refused_before_anything_is_sent(
    tmp_path: Any, change: tuple[str, str], subject: str
) -> None:
    path = tmp_path / "pack.yaml"
    path.write_text(PACKAGING.replace(*change))
    printed = CliRunner().invoke(app, ["pack", "render", "-f", str(path)])
    assert printed.exit_code == 12
    assert subject in printed.stderr
    assert printed.stdout == ""


# The resources of a packaging


def resources_of(own: dict[str, Any], settings: JobSettings | None = None) -> dict[str, Any]:
    resources: dict[str, Any] = container_of(render_job(request(settings, resources=own)))["resources"]
    return resources


def test_null_resources_count_as_absent() -> None:
    assert resources_of({"limits": {"memory": None}, "requests": None}) == resources_of({})
    assert "memory" not in resources_of({"limits": {"memory": None, "cpu": 1}})["limits"]


def test_disk_limit_replaces_the_default_disk_request() -> None:
    limits = {"ephemeral-storage": "5Gi", "memory": "1Gi"}
    assert resources_of({"limits": limits}) == {"limits": limits}
    assert resources_of({}, JobSettings(resources=ContainerResources(limits=limits))) == {"limits": limits}
    given = {"limits": limits, "requests": {"ephemeral-storage": "2Gi"}}
    assert resources_of(given) == given


@pytest.mark.parametrize("value", ["4 GB", "4gb", "20K", "-1", -1, "", "1Gi\n"])
def test_an_invalid_quantity_is_a_problem(value: Any) -> None:
    (problem,) = Resources.model_validate({"limits": {"memory": value}}).problems()
    assert problem.startswith(f"resources.limits.memory: {str(value)!r}")


@pytest.mark.parametrize("value", [2, 0.5, 1e-7, "500m", "4Gi", "1e3", "100M", "0"])
def test_a_valid_quantity_is_no_problem(value: Any) -> None:
    assert Resources.model_validate({"requests": {"cpu": value, "example.org/fpga": value}}).problems() == []


def test_an_invalid_resource_name_is_a_problem() -> None:
    assert len(Resources.model_validate({"requests": {"a b": "1"}}).problems()) == 1


def test_a_request_above_its_limit_is_a_problem() -> None:
    resources = Resources.model_validate({"limits": {"memory": "1Gi"}, "requests": {"memory": "1025Mi"}})
    assert resources.problems() == ["resources.requests.memory is above resources.limits.memory"]


@pytest.mark.parametrize("resources", [{"limits": "2Gi"}, {"limits": {"cpu": True}}, {"requests": {"gpu": ["1"]}}])
def test_resources_of_the_wrong_type_are_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Resources.model_validate(resources)


def test_job_settings_refuse_an_invalid_quantity() -> None:
    with pytest.raises(ValidationError):
        ContainerResources(limits={"memory": "4gb"})


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"resources": {"limits": {"memory": "4 GB"}}}, "'4 GB'"),
        ({"outputConnection": "registry"}, "'docker'"),
        ({"artifactName": "../wine.zip"}, "trainingZipName"),
    ],
)
def test_packaging_that_would_fail_in_the_cluster_is_refused(
    tmp_path: Path, changes: dict[str, Any], subject: str
) -> None:
    spec: dict[str, Any] = {"integrationName": "docker-rest", "artifactName": "wine.zip", "outputConnection": "models"}
    spec |= {"targets": [{"name": "docker-push", "connectionName": "registry"}]}
    encoded = {"type": "docker", "uri": "registry.example/ml"}
    store = {"type": "s3", "uri": "s3://models/prefix"}
    documents: list[dict[str, Any]] = [{"id": "wine", "spec": {**spec, **changes}}]
    documents += [{"kind": "Connection", "id": "registry", "spec": encoded}]
    documents += [{"kind": "Connection", "id": "models", "spec": store}]
    file = tmp_path / "pack.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    done = CliRunner().invoke(app, ["pack", "render", "-f", str(file)])
    assert done.exit_code == 12
    assert subject in done.stderr
