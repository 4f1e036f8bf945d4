"""compose.yaml and Dockerfile fit the program that they run. There is no container engine here: see test_compose_processes too."""

import re
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, compose, own_services, read, seconds, services, understood

from backfill.config import SECRETS, load_settings

COMMANDS = {
    "upgrade": "db upgrade",
    "coordinator": "coordinator",
    "worker": "worker",
    "flower": "flower",
}
DAEMONS = ("coordinator", "worker", "flower", "postgres", "valkey")


def settings_of(service: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The settings that a service's environment gives; its secrets are files with their own name in them."""
    environment = {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)) for name, value in service["environment"].items()
    }
    for name in [name for name in environment if name.endswith("_FILE")]:
        file = tmp_path / Path(environment[name]).name
        file.write_text(file.name)
        environment[name] = str(file)
    return dict(load_settings(environment, tmp_path).items())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_service_runs_a_command_that_exists(name: str) -> None:
    service = own_services()[name]
    assert "entrypoint" not in service
    assert understood(service["command"]) == COMMANDS[name]


def test_the_image_starts_the_program_as_nobody_of_importance() -> None:
    dockerfile = read("Dockerfile")
    assert 'ENTRYPOINT ["backfill"]' in dockerfile
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001:10001"]


def test_the_image_gets_what_it_copies() -> None:
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", read("Dockerfile"), re.MULTILINE)
    allowed = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_variable_is_a_setting_and_every_secret_comes_from_a_file(name: str, tmp_path: Path) -> None:
    service = own_services()[name]
    settings = settings_of(service, tmp_path)
    assert settings["database.url"] == "database_url"
    assert settings["celery.broker_url"] == "broker_url"
    assert settings["core.secret_key"] == "secret_key"
    for variable in service["environment"]:
        setting = variable.removeprefix("BACKFILL__").removesuffix("_FILE").replace("__", ".").lower()
        assert variable.endswith("_FILE") == (setting in SECRETS)


def test_no_secret_stands_in_the_file() -> None:
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"password|secret|url", name, re.IGNORECASE):
                assert name.endswith("_FILE")
                assert str(value).startswith("/run/backfill/")


def test_everything_published_is_published_on_loopback_only() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", DAEMONS)
def test_what_runs_for_long_is_watched_and_started_again(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]


def test_nothing_runs_as_root_or_can_become_more_than_it_is() -> None:
    for name, service in services().items():
        assert name in {*own_services(), "prometheus"} or service["user"] not in {"root", "0"}
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_worker_has_time_to_hand_its_tasks_back(tmp_path: Path) -> None:
    service = own_services()["worker"]
    soft = settings_of(service, tmp_path)["worker.soft_shutdown_timeout"].total_seconds()
    assert seconds(service["stop_grace_period"]) >= soft + 15


def test_workers_can_be_scaled() -> None:
    worker = services()["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker


def test_flower_and_metrics_are_where_others_look_for_them(tmp_path: Path) -> None:
    coordinator = settings_of(own_services()["coordinator"], tmp_path)
    flower = settings_of(own_services()["flower"], tmp_path)
    assert f"127.0.0.1:{coordinator['coordinator.metrics_port']}/metrics" in str(
        own_services()["coordinator"]["healthcheck"]
    )
    assert f"127.0.0.1:{flower['flower.port']}/healthcheck" in str(own_services()["flower"]["healthcheck"])
    assert own_services()["flower"]["ports"] == [f"127.0.0.1:{flower['flower.port']}:{flower['flower.port']}"]
    prometheus = read("config/prometheus.yml")
    assert f"port: {coordinator['coordinator.metrics_port']}" in prometheus
    assert f"flower:{flower['flower.port']}" in prometheus


def test_servers_are_ready_and_the_schema_is_there_before_anything_uses_them() -> None:
    own = own_services()
    assert own["upgrade"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("coordinator", "worker", "flower"):
        assert own[name]["depends_on"] == {
            "upgrade": {"condition": "service_completed_successfully"},
            "valkey": {"condition": "service_healthy"},
        }
    for name in ("postgres", "valkey"):
        assert services()[name]["depends_on"] == {"secrets": {"condition": "service_completed_successfully"}}


def test_every_volume_and_file_that_is_mounted_exists() -> None:
    content = compose()
    for service in content["services"].values():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in content["volumes"]
