"""What validation needs and a machine need not have: helm, schemas, a parser of PromQL. Fetched once, kept in a cache.

Programs and schemas come through the `go` command, at fixed versions, and are checked by it; nothing else is asked for
them. Of the modules only what is used is kept: Kubernetes alone is 145 MB, its schema four. A thing is complete once it
has its name in the cache, so that a run that was ended leaves nothing that looks like it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HELM = "3.22.0"
KUBERNETES = ("1.27.16", "1.37.2")
"""The oldest that Chart.yaml allows, and the newest that was tried."""
KEDA = "2.21.0"
PROMETHEUS_OPERATOR = "0.85.0"
COMPOSE = "2.16.2"
PROMQL = "0.11.0"

CACHE = "TICKWORK_DEPLOY_CACHE"
PATIENCE = 1_200
"""Seconds for one download or build; on two busy cores helm takes five minutes."""


class Trouble(Exception):
    """What keeps validation from being done; not a finding."""


def cache() -> Path:
    """Where things are kept: TICKWORK_DEPLOY_CACHE, or a folder in the user's cache."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "tickwork-deploy"


def helm() -> Path:
    """The helm command."""
    return _once(f"helm-{HELM}", _build_helm)


def kubernetes(version: str) -> Path:
    """The definitions of all kinds of a version of Kubernetes (OpenAPI 2)."""
    path = "api/openapi-spec/swagger.json"
    return _once(f"kubernetes-{version}.json", _file_of(f"k8s.io/kubernetes@v{version}", path))


def scaled_object() -> Path:
    """KEDA's definition of a ScaledObject."""
    path = "config/crd/bases/keda.sh_scaledobjects.yaml"
    return _once(f"keda-{KEDA}.yaml", _file_of(f"github.com/kedacore/keda/v2@v{KEDA}", path))


def monitoring(plural: str) -> Path:
    """The Prometheus operator's definition of `servicemonitors` or `prometheusrules`."""
    module = f"github.com/prometheus-operator/prometheus-operator@v{PROMETHEUS_OPERATOR}"
    path = f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml"
    return _once(f"{plural}-{PROMETHEUS_OPERATOR}.yaml", _file_of(module, path))


def compose() -> Path:
    """The JSON schema of Compose files."""
    module = f"github.com/compose-spec/compose-go/v2@v{COMPOSE}"
    return _once(f"compose-{COMPOSE}.json", _file_of(module, "schema/compose-spec.json"))


def promql() -> Path:
    """A folder with the Python module promql_parser."""
    tag = f"{sys.implementation.cache_tag}-{sys.platform}-{os.uname().machine}"
    return _once(f"promql-{PROMQL}-{tag}", _install_promql)


def run(command: list[str | Path], what: str, **settings: str) -> str:
    """What a command prints. Raises Trouble with what it complained of."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, env={**os.environ, **settings}
        )
    except FileNotFoundError:
        raise Trouble(f"{what} needs the command `{command[0]}`, and there is none here") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{what} took more than {PATIENCE} seconds") from None
    if done.returncode:
        raise Trouble(f"{what} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def _once(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The thing of this name in the cache; `make(target, scratch)` makes it where it is missing."""
    there = cache() / name
    if there.exists():
        return there
    print(f"deploy/validate: fetching {name}", file=sys.stderr, flush=True)
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=there.parent) as folder:
        scratch = Path(folder)
        target = scratch / "made"
        make(target, scratch)
        try:
            target.rename(there)
        except OSError:
            if not there.exists():  # else another run was faster, and has made the same
                raise
    return there


def _go(scratch: Path) -> dict[str, str]:
    """Settings of `go` that keep what it downloads and builds out of the user's own caches."""
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
    return {"GOMODCACHE": str(scratch / "modules"), "GOCACHE": str(scratch / "built"), "GOFLAGS": flags}


def _build_helm(target: Path, scratch: Path) -> None:
    bin_folder = scratch / "bin"
    settings = _go(scratch) | {"GOBIN": str(bin_folder), "CGO_ENABLED": "0"}
    package = f"helm.sh/helm/v3/cmd/helm@v{HELM}"
    run(["go", "install", "-trimpath", "-ldflags=-s -w", package], f"building {package}", **settings)
    (bin_folder / "helm").rename(target)


def _file_of(module: str, path: str) -> Callable[[Path, Path], None]:
    def make(target: Path, scratch: Path) -> None:
        told = run(["go", "mod", "download", "-json", module], f"fetching {module}", **_go(scratch))
        shutil.copyfile(Path(json.loads(told)["Dir"]) / path, target)

    return make


def _install_promql(target: Path, _scratch: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    what = f"promql-parser=={PROMQL}"
    run([*pip, "--only-binary=:all:", "--target", target, what], f"installing {what}")
