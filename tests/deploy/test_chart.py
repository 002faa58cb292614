"""The chart without helm: its values keep to their schema, and what it names outside of itself is there."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from tickwork import __version__
from tickwork.adapters.bus.kafka.address import Options
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.metrics import exposition, of_servers
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "tickwork"
RUNBOOK = ROOT / "docs" / "runbook.md"
OVERLAYS = [CHART / "values-production.yaml", *sorted((DEPLOY / "validation" / "values").glob("*.yaml"))]

# What deploy/ calls its own settings: Compose fills them in, no process sees them.
OF_COMPOSE = {
    "TICKWORK_DB_OWNER_PASSWORD",
    "TICKWORK_DB_PASSWORD",
    "TICKWORK_GRAPH",
    "TICKWORK_GRAPHS",
    "TICKWORK_EXECUTORS",
    "TICKWORK_EXECUTOR_IMAGE",
    "TICKWORK_IMAGE",
}
# The cache of deploy/validate.
OF_VALIDATION = {"TICKWORK_DEPLOY_CACHE"}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path)
    return loaded


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As helm lays values over the chart's own: maps are merged, null takes a key away, the rest is replaced."""
    made = copy.deepcopy(values)
    for key, value in over.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = merged(made[key], value)
        else:
            made[key] = value
    return made


def problems(values: dict[str, Any]) -> list[str]:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(values)]


DEFAULTS = load(CHART / "values.yaml")


def test_the_default_values_keep_to_the_schema() -> None:
    assert not problems(DEFAULTS)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_other_values_keep_to_the_schema(path: Path) -> None:
    assert not problems(merged(DEFAULTS, load(path)))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"replicaCount": 3}, id="an unknown setting"),
        pytest.param({"dataPlane": {"replica": 3}}, id="an unknown setting of a role"),
        pytest.param({"executors": {"default": None}}, id="no executor"),
        pytest.param({"executors": {"default": {"graphs": []}}}, id="an executor without a graph"),
        pytest.param({"executors": {"Large_Pool": DEFAULTS["executors"]["default"]}}, id="a pool's name"),
        pytest.param({"bus": {"brokers": "kafka://kafka:9092"}}, id="a URL for brokers"),
        pytest.param({"bus": {"brokers": "user:word@kafka:9092"}}, id="a password among brokers"),
        pytest.param({"bus": {"options": {"password": "word"}}}, id="a password among options"),
        pytest.param({"blobs": {"url": "s3://b?access_key_id=a&secret_access_key=b"}}, id="a key in the URL"),
        pytest.param({"secrets": {"existingSecret": ""}}, id="no secret"),
        pytest.param({"podSecurityContext": {"runAsNonRoot": False}}, id="root"),
        pytest.param({"autoscaling": {"by": "magic"}}, id="an unknown way to scale"),
        pytest.param({"env": [{"name": "TICKWORK_LISTEN", "value": "x"}]}, id="a variable that the chart sets"),
        pytest.param({"image": {"digest": "latest"}}, id="a digest that is none"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    assert problems(merged(DEFAULTS, wrong))


def test_the_production_values_are_safe_to_lose_a_machine_with() -> None:
    values = merged(DEFAULTS, load(CHART / "values-production.yaml"))
    assert values["bus"]["options"]["replication"] >= 3
    assert values["bus"]["options"]["min_insync"] >= 2
    assert values["bus"]["options"]["tls"]
    roles = [values["dataPlane"], values["controlPlane"], *values["executors"].values()]
    assert min(role["autoscaling"]["minReplicas"] for role in roles) >= 2
    assert values["sweeper"]["replicas"] >= 2
    assert values["networkPolicies"]["enabled"]
    assert values["disruptionBudgets"]["enabled"]
    assert values["prometheusRule"]["enabled"]
    # A partition has one reader: more members of a group than one tenant's partitions gain that tenant nothing.
    assert max(role["autoscaling"]["maxReplicas"] for role in roles[:2]) <= values["bus"]["options"]["partitions"]


def test_chart_and_program_have_one_version() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_option_of_the_bus_can_be_set_but_not_its_passwords() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    known = set(schema["properties"]["bus"]["properties"]["options"]["properties"])
    assert known == set(Options.__struct_fields__) - {"username", "password", "key_password"}


def test_every_variable_is_one_that_the_program_reads() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"\bTICKWORK_[A-Z0-9_]+", source))
    read |= {f"TICKWORK_KAFKA_{option.upper()}" for option in Options.__struct_fields__}
    named = {
        name
        for path in DEPLOY.rglob("*")
        if path.is_file() and not any("cache" in part for part in path.relative_to(DEPLOY).parts)
        for name in re.findall(r"\bTICKWORK_[A-Z0-9_]+", path.read_text(encoding="utf-8"))
    }
    assert "TICKWORK_STATE_URL" in named  # the search finds something
    assert named <= read | OF_COMPOSE | OF_VALIDATION


# -- alerts ------------------------------------------------------------------------------------------------------------

FOREIGN = {"kafka_consumergroup_lag"}


def alerts() -> Iterator[dict[str, Any]]:
    for group in load(CHART / "alerts.yaml")["groups"]:
        yield from group["rules"]


async def metrics() -> set[str]:
    """The names of all metrics of our processes, also of those with Postgres."""
    async with Runtime(Profile.test()) as runtime:
        clock = runtime.clock
        runtime.measurements.servers = {"state": runtime.store}
        families = await runtime.measurements.measurements()
    families += of_servers({"state": PostgresStore("postgresql://me@host/db", clock)}, {})
    told = set(re.findall(r"^# TYPE (\w+) ", exposition(families).decode(), re.MULTILINE))
    return told | {f"{family.name}_bucket" for family in families if family.kind == "histogram"}


async def test_alerts_ask_for_metrics_that_there_are() -> None:
    asked = {name for rule in alerts() for name in re.findall(r"\b(?:tickwork|kafka)_\w+", rule["expr"])}
    assert len(asked) > 10
    assert asked - FOREIGN <= await metrics()


def test_alerts_are_told_apart_and_explained() -> None:
    runbook = RUNBOOK.read_text(encoding="utf-8")
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(re.findall(r"^### (Tickwork\w+)$", runbook, re.MULTILINE))
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_alerts_look_at_one_installation() -> None:
    """The chart puts its own namespace and job in the place of job="tickwork"."""
    for rule in alerts():
        for selector in re.findall(r"\b(?:tickwork_\w+|up)(\{[^}]*\})?", rule["expr"]):
            assert 'job="tickwork"' in selector, rule["alert"]
