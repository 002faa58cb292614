"""compose.yaml and the Dockerfile without Docker: no secret, nothing open to the network, no right too many."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
ROLES = ("data-plane", "control-plane", "executor", "sweeper")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = YAML(typ="safe").load(COMPOSE)["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, with their continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, re.sub(r"\s+", " ", rest)) for word, _, rest in (line.partition(" ") for line in lines)]


def test_every_role_is_a_service_and_waits_for_the_migration() -> None:
    for role in ROLES:
        service = services()[role]
        assert service["command"][:2] == ["serve", f"--roles={role}"]
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_whatever_is_waited_for_is_there_and_can_come_true() -> None:
    found = services()
    for service in found.values():
        for name, wait in service.get("depends_on", {}).items():
            waited_for = found[name]
            if wait["condition"] == "service_healthy":
                assert "test" in waited_for["healthcheck"]
            else:
                assert waited_for.get("restart", "no") in ("no", "on-failure")


def test_what_is_published_is_on_the_loopback_address() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == len(ROLES)
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_our_containers_have_no_more_rights_than_they_need() -> None:
    for name in (*ROLES, "cli", "migrate"):
        service = services()[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


def test_passwords_come_from_the_environment_and_have_to_be_given() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    secrets = set(re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)([^}]*)\}", text))
    assert {name for name, _ in secrets} == {
        "POSTGRES_PASSWORD", "TICKWORK_DB_OWNER_PASSWORD", "TICKWORK_DB_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY",
    }  # fmt: skip
    assert {rest for _, rest in secrets} == {":?"}
    for name, value in re.findall(r"^ +(\w*(?:PASSWORD|SECRET|ACCESS_KEY)\w*): (\S+)", text, re.MULTILINE):
        assert value.startswith("${"), name
    for login in re.findall(r"://[^@/\s]+@", text):
        assert re.fullmatch(r"://\w+:\$\{\w+:\?\}@", login)


def test_the_example_of_settings_names_them_all_and_gives_no_password() -> None:
    example = (DEPLOY / "compose.env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    # Of one that falls back on another, the example says nothing.
    text = re.sub(r"\$\{(\w+):-(\$\{[^}]+\})\}", r"${\1:-} \2", COMPOSE.read_text(encoding="utf-8"))
    asked = re.findall(r"\$\{(\w+)(:[-?])?([^}]*)\}", text)
    assert {name for name, _, _ in asked} == set(given)
    for name, form, default in asked:
        assert given[name] == (default if form == ":-" else ""), name


def test_executors_find_the_graph_that_the_example_names() -> None:
    folder, graph = re.findall(r"^TICKWORK_GRAPHS?=(.*)$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE)
    assert (DEPLOY / folder / Path(graph).relative_to("/graphs")).is_file()


def test_a_drain_has_the_time_that_it_is_promised() -> None:
    for role in ROLES:
        service = services()[role]
        drain = int(service["environment"]["TICKWORK_DRAIN"].removeprefix("${TICKWORK_DRAIN:-").removesuffix("}"))
        assert int(service["stop_grace_period"].removesuffix("s")) > drain


def test_the_image_runs_as_nobody_in_particular() -> None:
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    assert [word for word, _ in instructions()].count("FROM") == 2
    assert "ADD" not in {word for word, _ in instructions()}


def test_the_image_has_the_extras_of_the_cloud_profile() -> None:
    (extras,) = (rest.partition("=")[2] for word, rest in instructions() if word == "ARG" and rest.startswith("EXTRAS"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"kafka", "postgres", "redis", "s3"} <= set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_tells_whether_it_lives() -> None:
    health = dict(instructions())["HEALTHCHECK"]
    listen = re.search(r"TICKWORK_LISTEN=\S+?:(\d+)", dict(instructions())["ENV"])
    assert listen
    assert ":{port}/healthz" in health
    assert "os.environ['TICKWORK_LISTEN']" in health


def test_a_service_is_well_when_it_is_ready() -> None:
    listen = re.search(r"TICKWORK_LISTEN=\S+?:(\d+)", dict(instructions())["ENV"])
    assert listen
    for role in ROLES:
        assert f":{listen[1]}/readyz" in services()[role]["healthcheck"]["test"][-1]


def test_the_image_is_made_of_what_the_build_may_see() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    seen = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert {name.removeprefix("./") for names in copied for name in names} == seen
