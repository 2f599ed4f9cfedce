"""The files under ``packaging/`` and ``.github/``: checked by reading them, and by their own validators."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dllama_worker.worker.flags import make_parser
from dllama_worker.worker.settings_file import parse_arguments

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "systemd/dllama-worker.service"
DOCKERFILE = PACKAGING / "docker/Dockerfile"
COMPOSE = PACKAGING / "docker/compose.yaml"
KUBERNETES = PACKAGING / "kubernetes/dllama-worker.yaml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

#: Of systemd's 0 (locked away) to 10 (unprotected).
MAX_EXPOSURE = 1.5


def yaml_documents(path: Path) -> list[Any]:
    if importlib.util.find_spec("yaml") is None:
        pytest.skip("needs PyYAML (make packaging installs it)")
    import yaml

    return list(yaml.safe_load_all(path.read_text()))


def passes(*command: str | Path, cwd: Path = ROOT) -> str:
    run = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


# Flags are the worker's own --------------------------------------------------------------------------


def test_the_settings_file_is_one() -> None:
    arguments = parse_arguments(make_parser, ["--config", str(PACKAGING / "worker.toml")])
    assert (arguments.host, arguments.port, arguments.metrics_port) == ("0.0.0.0", 9990, 9100)  # noqa: S104
    assert arguments.metrics_host == "127.0.0.1"
    # Whoever copies it opens the worker to nobody by accident.
    assert [str(network) for network in arguments.allow] == ["192.168.1.0/24"]


def test_the_units_command_is_the_workers() -> None:
    [command] = re.findall(r"^ExecStart=\S+/dllama-worker (.*)$", UNIT.read_text(), re.M)
    assert make_parser().parse_args(command.split()).config == Path("/etc/dllama-worker/worker.toml")


def test_the_images_command_and_its_probe_fit_each_other() -> None:
    [command] = re.findall(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.M)
    arguments = make_parser().parse_args(tomllib.loads(f"words = {command}")["words"])
    assert f"http://127.0.0.1:{arguments.metrics_port}/healthz" in DOCKERFILE.read_text()
    assert f"EXPOSE {arguments.port} {arguments.metrics_port}" in DOCKERFILE.read_text()
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE.read_text(), re.M)


def test_the_compose_file_is_four_nodes_that_find_each_other() -> None:
    from dllama_worker.root.flags import make_parser as make_root_parser

    [compose] = yaml_documents(COMPOSE)
    services = compose["services"]
    workers = {name for name in services if name != "root"}
    for name in workers:
        arguments = make_parser().parse_args(services[name]["command"])
        assert (arguments.host, arguments.port, arguments.metrics_port) == ("0.0.0.0", 9990, 9100)  # noqa: S104
    root = make_root_parser().parse_args(services["root"]["command"])
    assert {(worker.host, worker.port) for worker in root.workers} == {(name, 9990) for name in workers}
    assert len(workers) == 3
    assert set(services["root"]["depends_on"]) == workers


def test_the_pods_answer_their_probes() -> None:
    service, stateful, policy = yaml_documents(KUBERNETES)
    pod = stateful["spec"]["template"]
    [container] = pod["spec"]["containers"]
    arguments = make_parser().parse_args(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"dllama": arguments.port, "metrics": arguments.metrics_port}
    assert ports == {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert arguments.metrics_host == "0.0.0.0"  # noqa: S104 # the kubelet asks from outside of the pod
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    labels = pod["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        stateful["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


# Supply chain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["build", "docs", "test", "tools", "worker"])
def test_everything_locked_has_a_version_and_a_hash(name: str) -> None:
    text = re.sub(r"^ *#.*\n", "", (ROOT / f"requirements/{name}.txt").read_text(), flags=re.M)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    assert [
        entry for entry in entries if not re.match(r"[\w.-]+==\S+[^\n]*\\\n +--hash=sha256:", entry)
    ] == []


def test_the_locks_have_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = {
        "test": project["project"]["dependencies"] + extras["test"],
        "worker": project["project"]["dependencies"] + extras["metrics"],
        "docs": project["project"]["dependencies"] + extras["docs"],
        "build": project["build-system"]["requires"],
    }
    for name, requirements in wanted.items():
        locked = set(re.findall(r"^([\w.-]+)==", (ROOT / f"requirements/{name}.txt").read_text(), re.M))
        asked = {re.match(r"[\w.-]+", each)[0].lower() for each in requirements}  # type: ignore[index]
        assert asked - locked == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_and_only_publishing_may_ask_for_a_token(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
    assert text.count("id-token: write") == (path.name == "release.yml")
    assert "secrets." not in text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_workflows_make_can_be_made(path: Path) -> None:
    """Targets that stand in a list of a matrix included."""
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z][\w -]*):", makefile, re.M)
    targets = {target for rule in rules for target in rule.split()}
    text = path.read_text()
    lists = re.findall(r"^ +target: \[(.+)\]$", text, re.M)
    made = {
        *re.findall(r"run: make ([a-z][\w-]*)", text),
        *re.findall(r"target: ([a-z][\w-]*)", text),
        *(name for names in lists for name in names.split(", ")),
    }
    assert made - targets == set()


# Validators ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit_and_finds_it_locked_away(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    command = f"{sys.executable} -m dllama_worker"
    unit.write_text(UNIT.read_text().replace("/opt/dllama-worker/bin/dllama-worker", command))
    assert passes("systemd-analyze", "verify", "--man=no", unit) == ""
    said = passes("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(exposure) <= MAX_EXPOSURE


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint (make packaging installs it)")
def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    assert passes("hadolint", DOCKERFILE) == ""


@pytest.mark.slow
def test_compose_understands_its_file() -> None:
    commands = [["docker", "compose"], ["docker-compose"]]
    for command in commands:
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            said = passes(*command, "--file", COMPOSE, "--profile", "root", "config")
            assert said.count("worker3:9990") == 1
            return
    pytest.skip("needs docker compose or docker-compose")


@pytest.mark.skipif(
    importlib.util.find_spec("check_jsonschema") is None,
    reason="needs check-jsonschema (make packaging installs it)",
)
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_github_knows_every_key_of_the_workflows(path: Path) -> None:
    schema = "vendor.github-workflows"
    passes(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path)


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="needs kubernetes-validate (make packaging installs it)",
)
def test_kubernetes_knows_every_field() -> None:
    said = passes(sys.executable, "-m", "kubernetes_validate", "--strict", KUBERNETES)
    assert said.count(" passed for resource ") == 3
