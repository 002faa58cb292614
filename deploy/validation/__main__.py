"""What is checked, in which order, and how it is told. Exit codes: 0 fine, 4 findings, 1 it could not be done."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deploy.validation import objects, tools
from deploy.validation.schemas import Schemas
from deploy.validation.tools import Trouble

DEPLOY = Path(__file__).resolve().parents[1]
CHART = DEPLOY / "helm" / "tickwork"
VARIANTS = {
    "default values": [],
    "values-production.yaml": [CHART / "values-production.yaml"],
    **{path.stem: [path] for path in sorted((DEPLOY / "validation" / "values").glob("*.yaml"))},
}
FINE, TROUBLE, FINDINGS = 0, 1, 4


def main(words: Sequence[str]) -> int:
    """Validates everything, or the manifests and values that are named."""
    parser = argparse.ArgumentParser(prog="deploy/validate", description=__doc__)
    parser.add_argument("--values", metavar="FILE", type=Path, action="append", help="render the chart with these")
    parser.add_argument("--manifest", metavar="FILE", type=Path, help="look at these objects instead of the chart's")
    options = parser.parse_args(words)
    began = time.monotonic()
    try:
        findings = list(_findings(options.manifest, options.values))
    except Trouble as trouble:
        print(f"deploy/validate: {trouble}", file=sys.stderr)
        return TROUBLE
    for finding in findings:
        print(finding)
    print(f"deploy/validate: {len(findings)} findings, {time.monotonic() - began:.1f} s", file=sys.stderr)
    return FINDINGS if findings else FINE


def _findings(manifest: Path | None, values: list[Path] | None) -> Iterator[str]:
    custom = [tools.scaled_object(), tools.monitoring("servicemonitors"), tools.monitoring("prometheusrules")]
    schemas = {version: Schemas.read(tools.kubernetes(version), custom) for version in tools.KUBERNETES}
    if manifest is not None:
        yield from _manifest(manifest, schemas)
        return
    helm = tools.helm()
    if not values:
        yield from _lint(helm)
        yield from compose(DEPLOY / "compose.yaml")
        yield from alerts(CHART / "alerts.yaml")
    for name, files in VARIANTS.items() if not values else [("these values", values)]:
        for version, known in schemas.items():
            rendered = _rendered(helm, files, version)
            print(f"{name}, Kubernetes {version}: {len(rendered)} objects", file=sys.stderr)
            yield from (f"{name}, Kubernetes {version}: {problem}" for problem in _all(rendered, known))


def _all(found: list[dict[str, Any]], known: Schemas) -> Iterator[str]:
    told = [f"{objects.name_of(one)}: {problem}" for one in found for problem in known.problems(one)]
    yield from told
    if not told:  # they are of the form that is looked into here
        yield from objects.problems(found)


def _manifest(path: Path, schemas: dict[str, Schemas]) -> Iterator[str]:
    try:
        found = _load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        yield f"{path}: {error}"
        return
    for version, known in schemas.items():
        yield from (f"{path}, Kubernetes {version}: {problem}" for problem in _all(found, known))


def _lint(helm: Path) -> Iterator[str]:
    try:
        tools.run([helm, "lint", "--strict", "--quiet", CHART], "helm lint")
    except Trouble as trouble:
        yield str(trouble)


def _rendered(helm: Path, files: Sequence[Path], version: str) -> list[dict[str, Any]]:
    command: list[str | Path] = [helm, "template", "tickwork", CHART, "--namespace=tickwork"]
    command += [f"--kube-version={version}", *(f"--values={path}" for path in files)]
    return _load(tools.run(command, "helm template"))


def _load(text: str) -> list[dict[str, Any]]:
    return [found for found in YAML(typ="safe").load_all(text) if found]  # a key that is there twice is an error


def compose(path: Path) -> Iterator[str]:
    """What is wrong with a Compose file by the schema of Compose."""
    schema = json.loads(tools.compose().read_bytes())
    for error in validator_for(schema)(schema).iter_errors(YAML(typ="safe").load(path)):
        yield f"{path.name}: {error.json_path}: {error.message[:300]}"


def alerts(path: Path) -> Iterator[str]:
    """Expressions of alerts that Prometheus could not parse."""
    sys.path.insert(0, str(tools.promql()))
    promql = importlib.import_module("promql_parser")
    for group in YAML(typ="safe").load(path)["groups"]:
        for rule in group["rules"]:
            try:
                promql.parse(rule["expr"])
            except ValueError as error:
                yield f"{path.name}: {rule['alert']}: {str(error).strip().replace(chr(10), ' ')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
