"""What ships beside the package: judged by the tools of its own trade, and by what there is."""

import configparser
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
from ruamel.yaml import YAML

import calotype
from calotype.api.openapi import build_document
from calotype.catalog import load_catalog
from calotype.cli.main import app
from calotype.settings import Settings
from programs import installed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
IMAGE = f"calotype:{calotype.__version__}"
PLACEHOLDER = "f00dfeed" * 6
"""Where a secret goes."""
EXPOSED = 20
"""Tenths on systemd's scale, from 0 (nothing is left to take away) to 100."""
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def judge(program: str, *arguments: str | Path) -> None:
    """Have a program of the environment judge files."""
    command = [Path(sys.executable).parent / program, *arguments]
    judged = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def documents(file: Path) -> list[Any]:
    return [*YAML(typ="safe").load_all(file.read_text(encoding="utf-8"))]


def understood(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings of a process, whose command and variables there must be."""
    group: Any = typer.main.get_command(app)
    with group.make_context("calotype", [*arguments]) as context:
        name, command, rest = group.resolve_command(context, [*arguments])
        command.make_context(name, rest, parent=context).close()
    return Settings.load({k: v for k, v in environment.items() if k.startswith("CALOTYPE_")})


def paths() -> set[str]:
    """Those that answer without a key."""
    described = build_document(load_catalog(), lambda _: (), public_url="")["paths"]
    return {
        path for path, methods in described.items() if methods.get("get", {}).get("security") == []
    }


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == calotype.__version__


# The image


def test_the_dockerfile_is_sound_and_says_what_the_server_understands() -> None:
    judge("hadolint", ROOT / "Dockerfile")
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    variables = dict(re.findall(r"(CALOTYPE_\w+)=(\S+)", text))
    settings = understood(["serve"], variables)
    assert (settings.host, str(settings.data_dir)) == ("0.0.0.0", "/data")  # noqa: S104 -- in a container
    assert re.findall(r"^EXPOSE (\d+)$", text, re.MULTILINE) == [str(settings.port)]
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001:10001"]
    assert set(re.findall(r"\{p\}(/\w+)", text)) <= paths()
    assert "--require-hashes" in text


def test_the_image_is_made_of_what_the_dockerfile_copies_and_of_nothing_else() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE)
        for name in line.split()
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


# Compose


def compose() -> dict[str, Any]:
    (document,) = documents(DEPLOY / "compose.yaml")
    assert isinstance(document, dict)
    return document


def filled(value: object) -> str:
    """A value of the file, with something in the place of each variable."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else PLACEHOLDER, str(value))


def test_the_compose_file_is_sound_and_says_what_the_server_understands() -> None:
    judge("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    services = compose()["services"]
    ours = {name: each for name, each in services.items() if each["image"] == IMAGE}
    assert set(ours) == {"migrate", "api", "worker"}
    for service in ours.values():
        environment = {name: filled(value) for name, value in service["environment"].items()}
        settings = understood(service["command"], environment)
        assert settings.shared_database
        assert settings.assets_url.startswith("s3://")
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_every_variable_of_the_compose_file_stands_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = (DEPLOY / "env.example").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    named = {found[1] for line in lines for found in VARIABLE.finditer(line)}
    assert named == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


# Kubernetes


def kustomizations() -> Iterator[tuple[Path, Any]]:
    for file in sorted(KUBERNETES.rglob("kustomization.yaml")):
        (document,) = documents(file)
        yield file.parent, document


MANIFESTS = sorted(set(KUBERNETES.rglob("*.yaml")) - set(KUBERNETES.rglob("kustomization.yaml")))


def objects() -> list[Any]:
    return [each for file in MANIFESTS for each in documents(file)]


def pods() -> Iterator[tuple[str, Any]]:
    """Name and specification of whatever runs."""
    for each in objects():
        if "template" in each["spec"]:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def generated(key: str) -> dict[str, Any]:
    """What a generator of the kustomizations makes, by name."""
    return {
        one["name"]: one.get(key, [])
        for _, document in kustomizations()
        for one in document.get("configMapGenerator", [])
    }


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_manifest_is_sound(file: Path) -> None:
    for document in documents(file):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomizations_name_every_manifest_and_this_version() -> None:
    named = {
        (folder / one).resolve() for folder, each in kustomizations() for one in each["resources"]
    }
    folders = {folder for folder, _ in kustomizations()} - {KUBERNETES}
    assert named == {*MANIFESTS, *folders}
    images = [image for _, each in kustomizations() for image in each.get("images", [])]
    assert [(one["name"], one["newTag"]) for one in images] == [("calotype", calotype.__version__)]
    files = [file for each in generated("files").values() for file in each]
    assert all((KUBERNETES / "calotype" / file).is_file() for file in files)


def test_the_pods_say_what_the_server_understands() -> None:
    literals = dict(line.split("=", 1) for line in generated("literals")["calotype-settings"])
    ours = {name: pod for name, pod in pods() if pod["containers"][0]["image"] == "calotype"}
    assert set(ours) == {"calotype-migrate", "calotype-api", "calotype-worker"}
    for pod in ours.values():
        (container,) = pod["containers"]
        secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"]}
        database = f"postgresql://calotype:{PLACEHOLDER}@postgres/calotype"
        given = dict.fromkeys(secrets, PLACEHOLDER) | {"CALOTYPE_DATABASE_URL": database}
        settings = understood(container["args"], literals | given)
        assert settings.shared_database
        assert not pod["enableServiceLinks"]
        assert pod["terminationGracePeriodSeconds"] > 2 * settings.drain_seconds
        ports: dict[str, int | None] = {}
        if container["args"] != ["migrate"]:
            assert settings.metrics_host == "0.0.0.0"  # noqa: S104 -- in a pod, behind a policy
            ports["metrics"] = settings.metrics_port
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            if name in container:
                assert container[name]["httpGet"]["path"] in paths()
                ports["http"] = settings.port
        told = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        assert told == ports
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        maps = {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
        maps |= {each["configMapRef"]["name"] for each in container["envFrom"]}
        assert maps == set(generated("files"))


def test_every_pod_has_no_root_no_rights_nothing_to_write_and_its_resources_named() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_no_manifest_holds_a_secret() -> None:
    assert "Secret" not in {each["kind"] for each in objects()}
    for _, pod in pods():
        for variable in pod["containers"][0]["env"]:
            secret = re.search("SECRET|PASSWORD|KEY|DATABASE_URL", variable["name"])
            assert ("valueFrom" in variable) == bool(secret), variable


def test_services_budgets_and_policies_choose_pods_that_there_are() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in objects()
        if "template" in each["spec"]
    ]
    components = {each["app.kubernetes.io/component"] for each in labels}
    for each in objects():
        chosen = each["spec"].get("selector") or each["spec"].get("podSelector") or {}
        chosen = chosen.get("matchLabels", chosen)
        for rule in chosen.get("matchExpressions", []):
            assert set(rule["values"]) <= components
        if "matchExpressions" not in chosen:
            assert any(chosen.items() <= one.items() for one in labels), each["metadata"]["name"]


# systemd


def settings_of(unit: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the library's manual says
    parser.read_string(unit.read_text(encoding="utf-8"))
    return parser["Service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_says_what_the_server_understands(unit: Path) -> None:
    service = settings_of(unit)
    program, *arguments = shlex.split(service["ExecStart"])
    variables = dict(re.findall(r"(CALOTYPE_\w+)=(\S+)", service["Environment"]))
    settings = understood(arguments, variables)
    assert program == "/opt/calotype/bin/calotype"
    assert str(settings.data_dir) == f"/var/lib/{service['StateDirectory']}"
    assert int(service["TimeoutStopSec"]) > 2 * settings.drain_seconds


def test_the_units_are_sound_and_leave_little_open(tmp_path: Path) -> None:
    program = installed("systemd-analyze", "systemd")
    copies = []
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text.replace("/opt/calotype/bin/calotype", "/bin/true"))
    limit = ("security", "--offline=true", f"--threshold={EXPOSED}")
    for arguments in (["verify", "--man=no"], limit):
        judged = subprocess.run(
            [program, "--no-pager", *arguments, *copies],
            capture_output=True,
            text=True,
            check=False,
        )
        assert judged.returncode == 0, judged.stdout + judged.stderr
