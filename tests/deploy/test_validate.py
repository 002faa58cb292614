"""deploy/validate as CI runs it: the repository's own files pass, and each kind of mistake is refused.

Nothing here talks to a server, but the first run fetches schemas and builds helm: minutes, and never for `make test`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.validation.__main__ import alerts, compose
from deploy.validation.tools import CACHE

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(1_800)]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FINDINGS = 4

# Read when the module is imported: the tests' own environment forgets the developer's settings.
GIVEN = os.environ.get(CACHE)

GOOD = """
apiVersion: v1
kind: ConfigMap
metadata: {name: here}
data: {key: value}
"""


@pytest.fixture(autouse=True)
def _the_cache_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if GIVEN:
        monkeypatch.setenv(CACHE, GIVEN)


def validate(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEPLOY / "validate", *words], capture_output=True, text=True, check=False)


def test_chart_alerts_and_compose_file_are_valid() -> None:
    done = validate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "values-production.yaml, Kubernetes" in done.stderr  # it did look


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("data:", "date:"),
        ("kind: ConfigMap", "kind: ConfigMop"),
        ("apiVersion: v1", "apiVersion: v2"),
        ("{key: value}", "{key: [value]}"),
        ("{key: value}", "{key: value, key: value}"),
    ],
)
def test_a_manifest_is_refused_for_each_mistake(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(GOOD.replace(old, new) if old else GOOD, encoding="utf-8")
    done = validate("--manifest", path)
    assert done.returncode == (FINDINGS if old else 0), done.stdout + done.stderr
    assert bool(done.stdout) is bool(old)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        # Known to the schema of values only as "a list of objects": Kubernetes has to refuse what is in them.
        ("networkPolicies: {egress: [{port: 443}]}", "'port' was unexpected"),
        ("dataPlane: {affinity: {nodeAffinty: {}}}", "'nodeAffinty' was unexpected"),
        ("env: [{name: DB_PASSWORD, value: hunter2}]", "take it from a Secret"),
    ],
)
def test_values_that_make_bad_manifests_are_refused(tmp_path: Path, values: str, says: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(values, encoding="utf-8")
    done = validate("--values", path)
    assert done.returncode == FINDINGS, done.stdout + done.stderr
    assert says in done.stdout


def test_a_compose_file_with_a_mistake_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("tmpfs:", "tempfs:"), encoding="utf-8")
    assert list(compose(path))


def test_an_alert_that_prometheus_cannot_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alerts.yaml"
    text = (DEPLOY / "helm" / "tickwork" / "alerts.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("sum by (role) (", "sum by (role) (("), encoding="utf-8")
    assert [finding for finding in alerts(path) if "TickworkRoleDown" in finding]
