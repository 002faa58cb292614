"""Schemas of Kubernetes objects, made strict: a field that nobody knows is a mistake, not something to be ignored.

Kubernetes publishes the definitions of its kinds as OpenAPI 2, which is nearly JSON Schema; operators publish theirs in
CustomResourceDefinitions. `Schemas.problems(object)` says what the API server would, and refuses unknown fields, which
the server drops with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from ruamel.yaml import YAML

Object = dict[str, Any]

PREFIX = "#/definitions/"
INT_OR_STRING = {"type": ["integer", "string"]}
QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$",
}

# The published definitions name the allowed values in prose only; these are the ones that the chart uses.
WORDS = {
    ("Container", "imagePullPolicy"): ["Always", "IfNotPresent", "Never"],
    ("ContainerPort", "protocol"): ["TCP", "UDP", "SCTP"],
    ("LabelSelectorRequirement", "operator"): ["In", "NotIn", "Exists", "DoesNotExist"],
    ("MetricTarget", "type"): ["Utilization", "Value", "AverageValue"],
    ("NetworkPolicyPort", "protocol"): ["TCP", "UDP", "SCTP"],
    ("PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy"): ["IfHealthyBudget", "AlwaysAllow"],
    ("PodSpec", "restartPolicy"): ["Always", "OnFailure", "Never"],
    ("SeccompProfile", "type"): ["RuntimeDefault", "Localhost", "Unconfined"],
    ("TopologySpreadConstraint", "whenUnsatisfiable"): ["DoNotSchedule", "ScheduleAnyway"],
}


class Schemas:
    """The strict schema of each kind, by apiVersion and kind."""

    def __init__(self, definitions: Object, custom: Iterable[Object] = ()) -> None:
        self._definitions = {name: _kind(name, schema) for name, schema in definitions.items()}
        self._kinds: dict[tuple[str, str], Object] = {}
        for name, schema in definitions.items():
            for known in schema.get("x-kubernetes-group-version-kind", ()):
                at = "/".join(part for part in (known["group"], known["version"]) if part)
                self._kinds[at, known["kind"]] = {"$ref": PREFIX + name}
        for resource in custom:
            for version in resource["spec"]["versions"]:
                at = f"{resource['spec']['group']}/{version['name']}"
                self._kinds[at, resource["spec"]["names"]["kind"]] = self._custom(version["schema"]["openAPIV3Schema"])

    @classmethod
    def read(cls, definitions: Path, custom: Iterable[Path]) -> Schemas:
        """From a swagger.json of Kubernetes and files with CustomResourceDefinitions."""
        yaml = YAML(typ="safe")
        return cls(json.loads(definitions.read_bytes())["definitions"], [yaml.load(path) for path in custom])

    def problems(self, found: Object) -> Iterator[str]:
        """What is wrong with an object, as `path: what`."""
        kind = (str(found.get("apiVersion")), str(found.get("kind")))
        schema = self._kinds.get(kind)
        if schema is None:
            yield f"nobody knows a {kind[1]} of {kind[0]}"
            return
        validator = Draft7Validator(schema | {"definitions": self._definitions})
        for error in sorted(validator.iter_errors(found), key=lambda error: error.json_path):
            yield f"{error.json_path}: {_message(error)}"

    def _custom(self, schema: Object) -> Object:
        """The schema of a custom kind. What every kind has is told by Kubernetes, not by the kind's own definition."""
        strict: Object = strictly(schema)
        known = strict.setdefault("properties", {})
        known |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        known["metadata"] = {"$ref": PREFIX + meta} if meta in self._definitions else {"type": "object"}
        return strict


def strictly(schema: Any) -> Any:
    """The same schema, in which an object has no fields but those that are named."""
    if isinstance(schema, list):
        return [strictly(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return dict(INT_OR_STRING) | {key: schema[key] for key in ("pattern",) if key in schema}
    # `properties` maps names to schemas: a field called "properties" or "format" is no keyword.
    made = {
        key: {name: strictly(part) for name, part in value.items()} if key == "properties" else strictly(value)
        for key, value in schema.items()
        if key not in ("default", "example", "format") and not key.startswith("x-")
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not free:
        made["additionalProperties"] = False
    return made


def _kind(name: str, schema: Object) -> Any:
    word = name.rpartition(".")[2]
    if word == "Quantity":
        return QUANTITY
    made = strictly(schema)
    for (kind, field), allowed in WORDS.items():
        if kind == word and field in made.get("properties", {}):
            made["properties"][field] = {"enum": allowed}
    return made


def _message(error: ValidationError) -> str:
    return error.message if len(error.message) < 300 else f"{error.message[:300]}..."
