from __future__ import annotations

from typing import Any

import pytest

from packager.errors import RequestError
from packager.models.image_name import render_image_name
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.docker_rest import RestArguments
from packager.request import Overrides, find_integration_type, parse_argument
from tests.unit.builders import REGISTRY, UUID, packaging, request

VALUES = {"Name": "Wine Model", "Version": "1.0", "RandomUUID": UUID}


def test_the_minimal_packaging_gets_every_documented_default() -> None:
    made = request()
    assert made.arguments.model_dump(by_alias=True) == {
        "imageName": "{{ Name }}-{{ Version }}:{{ RandomUUID }}",
        "dockerfileBaseImage": "python:3.6",
        "dockerfileAddCondaInstallation": True,
        "dockerfileCondaEnvsLocation": "/opt/conda/envs/",
        "port": 5000,
        "timeout": 60,
        "workers": 1,
        "threads": 4,
        "host": "0.0.0.0",
        "batchMaxSize": 1,
        "batchMaxLatencyMs": 0,
        "maxBodyBytes": 67108864,
        "maxRows": 1000000,
        "checkInput": True,
        "check": "auto",
    }
    assert str(made.destination) == f"docker://gcr.io/project/odahuflow/wine-1.0:{UUID}"
    assert str(made.base) == "docker.io/library/python:3.6"


def test_an_argument_comes_from_the_command_line_else_the_packaging_else_the_integration() -> None:
    properties = [
        {"name": name, "parameters": [{"name": "default", "value": value}]}
        for name, value in {"workers": 2, "threads": 2, "timeout": 2, "unheard": 1}.items()
    ]
    entity = {"id": "docker-rest", "spec": {"schema": {"arguments": {"properties": properties}}}}
    manifest = packaging({"threads": 3, "timeout": 3, "port": None}, entity=entity)
    arguments = request(manifest, Overrides(arguments={"timeout": 4})).arguments
    assert isinstance(arguments, RestArguments)
    assert (arguments.workers, arguments.threads, arguments.timeout, arguments.port) == (2, 3, 4, 5000)


def test_cli_has_no_serving_arguments() -> None:
    made = request(packaging(integration="docker-cli"))
    assert sorted(made.arguments.model_dump(by_alias=True)) == [
        "check",
        "dockerfileAddCondaInstallation",
        "dockerfileBaseImage",
        "dockerfileCondaEnvsLocation",
        "imageName",
    ]
    with pytest.raises(RequestError, match="argument 'port' is unknown"):
        request(packaging({"port": 1}, integration="docker-cli"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"color": "red"}, "argument 'color' is unknown; docker-rest has"),
        ({"port": "5000"}, "argument port: input should be a valid integer"),
        ({"port": 0}, "argument port: input should be greater than or equal to 1"),
        ({"port": 65536}, "argument port: input should be less than or equal to 65535"),
        ({"port": True}, "argument port: input should be a valid integer"),
        ({"workers": 0}, "argument workers: input should be greater than or equal to 1"),
        ({"threads": 1.5}, "argument threads: input should be a valid integer"),
        ({"timeout": -1}, "argument timeout"),
        ({"host": "a b"}, "argument host: string should match pattern"),
        ({"dockerfileBaseImage": "https://x/y"}, "argument dockerfileBaseImage: 'https://x/y' has a scheme"),
        ({"dockerfileBaseImage": ""}, "argument dockerfileBaseImage"),
        (
            {"dockerfileAddCondaInstallation": "yes"},
            "argument dockerfileAddCondaInstallation: input should be a valid bool",
        ),
        ({"dockerfileCondaEnvsLocation": "envs"}, "argument dockerfileCondaEnvsLocation"),
        ({"dockerfileCondaEnvsLocation": "/a/../b"}, "argument dockerfileCondaEnvsLocation"),
        ({"dockerfileCondaEnvsLocation": "/a\nRUN x"}, "argument dockerfileCondaEnvsLocation"),
        ({"imageName": 5}, "argument imageName: input should be a valid string"),
        ({"imageName": "{{ Nam }}"}, "uses an unknown name: 'Nam' is undefined; it may use Name, Version"),
        ({"imageName": "{{ Name.__class__ }}"}, "is not allowed"),
        ({"imageName": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}, "is not allowed"),
        ({"imageName": "{{ Name * 1000000000 }}"}, "is not allowed"),
        ({"imageName": "{{ 'x'.center(1000000000) }}"}, "is not allowed"),
        ({"imageName": "{{ '%1000000000s' % 1 }}"}, "is not allowed"),
        ({"imageName": "{{ 'x'.format(1) }}"}, "is not allowed"),
        ({"imageName": "{% for i in 'ab' %}{% endfor %}x"}, "the statement 'for' is not allowed"),
        ({"imageName": "{% set a = 'x' %}{{ a }}"}, "the statement 'assign' is not allowed"),
        ({"imageName": "{% macro m() %}{% endmacro %}{{ m() }}"}, "the statement 'macro' is not allowed"),
        ({"imageName": "{{ 'a'" + ".replace('a', 'aaaaaaaaaaaaaaaa')" * 9 + " }}"}, "a text grows beyond 4096"),
        ({"imageName": "{{ 'a'" + " | replace('a', 'aaaaaaaaaaaaaaaa')" * 9 + " }}"}, "a text grows beyond 4096"),
        ({"imageName": "{{ range(10) }}"}, "is not allowed"),
        ({"imageName": "{{ Name.format_map }}"}, "is not text"),
        ({"imageName": "{{ self }}"}, "is not text"),
        ({"imageName": "{{ Name.split() }}"}, "list is not text"),
        ({"imageName": "{{ Name.ljust(9999999999) }}"}, "is not allowed"),
        ({"imageName": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}"}, "can't be rendered"),
        ({"imageName": "日本語"}, "leaves no name: it needs letters a-z or digits"),
        ({"imageName": "{{ Name | pprint }}"}, "No filter named 'pprint'"),
        ({"imageName": "{{ Name | center(1000000000) }}"}, "No filter named 'center'"),
        ({"imageName": "{{ Name"}, "can't be rendered"),
        ({"imageName": "{{ 1 // 0 }}"}, "can't be rendered"),
        ({"imageName": "{{ '' }}"}, "renders to '', which leaves no name"),
        ({"imageName": "--/:1"}, "leaves no name"),
        ({"imageName": "команда/wine:1"}, "leaves no folder 'команда' in its path"),
        ({"imageName": "wine:последняя"}, "renders to 'wine:последняя', which leaves no tag"),
        ({"imageName": "wine:"}, "leaves no tag"),
        ({"imageName": "a:" + "x" * 129}, "is not a tag"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(packaging(arguments))
    assert problem in caught.value.message
    assert caught.value.exit_code == 12
    assert "packager integrations" in caught.value.hint


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ({}, "target 'docker-push' is required: name a connection of type docker or ecr"),
        ({"docker-push": {**REGISTRY, "type": "s3"}}, "connection 'docker-push' is of type 's3'; allowed: docker, ecr"),
        ({"docker-push": {**REGISTRY, "uri": "https://gcr.io"}}, "its uri has the scheme 'https'"),
        ({"docker-push": {**REGISTRY, "uri": "/"}}, "its uri is empty"),
        ({"docker-push": {**REGISTRY, "uri": "gcr.io/Up"}}, "its uri is wrong"),
        (
            {"docker-push": REGISTRY, "pypi": REGISTRY},
            "target 'pypi' is unknown; docker-rest has docker-pull, docker-push",
        ),
    ],
)
def test_a_wrong_target_is_named(targets: dict[str, dict[str, Any]], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(packaging(targets=targets))
    assert problem in caught.value.message


def test_every_problem_is_in_one_error() -> None:
    manifest = packaging(
        {"color": "red", "port": "x", "workers": 0}, targets={"docker-pull": {"type": "s3", "uri": "b"}}
    )
    with pytest.raises(RequestError) as caught:
        request(manifest)
    lines = caught.value.message.splitlines()
    assert lines[0] == "packaging 'wine' can't be built as docker-rest:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "- argument 'color' is unknown; docker-rest has "
        + ", ".join(sorted(request().arguments.model_dump(by_alias=True))),
        "- argument port",
        "- argument workers",
        "- target 'docker-pull'",
        "- target 'docker-push' is required",
    ]


def test_a_wrong_argument_does_not_hide_a_wrong_template() -> None:
    with pytest.raises(RequestError) as caught:
        request(packaging({"port": 0, "imageName": "{{ Nope }}"}))
    assert "argument port" in caught.value.message
    assert "'Nope' is undefined" in caught.value.message


def test_null_is_absent_also_for_an_argument_that_is_unknown() -> None:
    manifest = packaging({"workers": None, "imageName": None}, integration="docker-cli")
    assert request(manifest).arguments.image_name == "{{ Name }}-{{ Version }}:{{ RandomUUID }}"


def test_an_integration_and_an_entry_point_that_contradict_each_other_are_refused() -> None:
    entity = {"id": "docker-cli", "spec": {"entrypoint": "odahu-flow-pack-to-rest"}}
    manifest = packaging(integration="docker-cli", entity=entity)
    with pytest.raises(RequestError, match="'docker-cli', whose entry point is that of docker-rest"):
        find_integration_type(manifest)
    assert find_integration_type(manifest, "docker-cli").name == "docker-cli"


def test_an_integration_can_narrow_the_connection_types_and_require_arguments() -> None:
    targets = [{"name": "docker-push", "connectionTypes": ["ecr"], "required": True}]
    entity = {"spec": {"schema": {"targets": targets, "arguments": {"required": ["imageName"]}}}}
    with pytest.raises(RequestError) as caught:
        request(packaging(entity=entity))
    assert "argument 'imageName' is required" in caught.value.message
    assert "of type 'docker'; allowed: ecr" in caught.value.message


def test_an_output_on_the_command_line_needs_no_push_target() -> None:
    made = request(packaging(targets={}), Overrides(output="oci:layout"))
    assert made.destination.transport == "oci"
    assert str(made.destination.reference) == f"localhost/wine-1.0:{UUID}"
    with pytest.raises(RequestError, match="is not an output"):
        request(packaging(targets={}), Overrides(output="ftp:x"))


def test_a_trailing_slash_of_the_uri_is_ignored() -> None:
    made = request(packaging({"imageName": "a:1"}, targets={"docker-push": {**REGISTRY, "uri": "localhost:5000/"}}))
    assert str(made.destination) == "docker://localhost:5000/a:1"


def test_the_application_is_found_by_integration_or_by_entry_point() -> None:
    assert find_integration_type(packaging(integration="docker-cli")).name == "docker-cli"
    entity = {"id": "own", "spec": {"entrypoint": "/opt/bin/odahu-flow-pack-to-cli"}}
    assert find_integration_type(packaging(integration="own", entity=entity)).name == "docker-cli"
    assert find_integration_type(packaging(integration="docker-cli"), "docker-rest").name == "docker-rest"
    with pytest.raises(RequestError, match="the integration 'own' is unknown") as caught:
        find_integration_type(packaging(integration="own"))
    assert caught.value.hint == "supported: docker-rest, docker-cli"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ Name }}-{{ Version }}:{{ RandomUUID }}", f"wine-model-1.0:{UUID}"),
        ("wine-test:prefix-{{ RandomUUID }}", f"wine-test:prefix-{UUID}"),
        ("myservice:123", "myservice:123"),
        ("Team X/{{ Name }}", "team-x/wine-model"),
        ("a!!b??c:V 1 + 2", "a-b-c:v-1-2"),
        ("a..b/._c_:-1", "a-b/c:1"),
        ("localhost:5000/a:1", "localhost-5000/a:1"),
        ("{{ Name | replace(' ', '_') }}", "wine_model"),
        ("{{ Name.lower().replace(' ', '__') }}", "wine__model"),
        ("{{ Name.split(' ')[0] }}:{{ Version[0] }}", "wine:1"),
        (
            "{% if Version == '1.0' %}stable{% else %}next{% endif %}/{{ Name[:4] ~ '-' ~ RandomUUID[:8] }}",
            "stable/wine-ec1bf1cd",
        ),
    ],
)
def test_an_image_name_is_rendered_and_made_acceptable(template: str, name: str) -> None:
    assert render_image_name(template, VALUES) == name


@pytest.mark.parametrize(
    ("template", "values", "name"),
    [
        ("{{ Name }}:{{ Version }}", {"Version": "feature/x"}, "wine:feature-x"),
        ("{{ Name }}:{{ Version }}", {"Version": "refs/heads/main"}, "wine:refs-heads-main"),
        ("{{ Name }}:{{ Version }}", {"Version": "2021-05-04 12:33"}, "wine:2021-05-04-12-33"),
        ("{{ Name }}:{{ Version }}", {"Version": "1.0 : /beta"}, "wine:1.0-beta"),
        ("{{ Name }}:{{ Version }}", {"Version": "1.0+cpu@sha256:ab"}, "wine:1.0-cpu-sha256-ab"),
        ("{{ Name }}:{{ Version }}", {"Name": "team/wine"}, "team-wine:1.0"),
        ("team/{{ Name }}", {"Name": "wine:1"}, "team/wine-1"),
        ("{{ Name }}:{{ RandomUUID }}", {"RandomUUID": "a/b:c"}, "wine:a-b-c"),
        ("{{ Name ~ ':' ~ Version }}", {"Version": "a/b"}, "wine:a-b"),
        ("{{ Name | replace('-', '/') }}:1", {"Name": "team/wine"}, "team/wine:1"),
    ],
)
def test_separators_in_a_value_stay_within_its_part_of_the_name(
    template: str, values: dict[str, str], name: str
) -> None:
    assert render_image_name(template, {"Name": "wine", "Version": "1.0", "RandomUUID": UUID, **values}) == name


@pytest.mark.parametrize(
    ("model", "name"),
    [("вино", "1.0:1"), ("vin-blanc-été", "vin-blanc-t-1.0:1"), ("日本のワイン", "1.0:1"), ("wine ٣", "wine-1.0:1")],
)
def test_lost_letters_of_other_scripts_are_warned_about(
    model: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert render_image_name("{{ Name }}-{{ Version }}:1", {"Name": model, "Version": "1.0"}) == name
    (record,) = caplog.records
    assert f"'{model}-1.0:1' has letters that a registry doesn't accept and becomes '{name}'" in record.getMessage()
    assert "set the argument imageName" in record.getMessage()


@pytest.mark.parametrize(
    "template", ["{{ Name }}:{{ Version }}", "{{ Name | default('x') }}", "team/{{ Name }}:{{ Version }}"]
)
def test_a_name_that_vanishes_is_an_error(template: str) -> None:
    with pytest.raises(ValueError, match=r"leaves no .*letters a-z or digits; set imageName to one that has them"):
        render_image_name(template, {"Name": "вино", "Version": "1.0"})


def test_lost_punctuation_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    assert render_image_name("{{ Name }} — №1!", {"Name": "Wine™"}) == "wine-1"
    assert not caplog.records


def test_a_command_line_argument_is_read_by_the_type_it_should_have() -> None:
    rest = INTEGRATION_TYPES["docker-rest"]
    assert parse_argument(rest, "workers=4") == ("workers", 4)
    assert parse_argument(rest, "imageName=1.0") == ("imageName", "1.0")
    assert parse_argument(rest, "dockerfileAddCondaInstallation=false") == ("dockerfileAddCondaInstallation", False)
    assert parse_argument(rest, "imageName=a=b") == ("imageName", "a=b")
    with pytest.raises(RequestError, match="has no value"):
        parse_argument(rest, "workers")
