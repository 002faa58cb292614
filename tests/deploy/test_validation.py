"""What deploy/validate looks for, on objects made here: each mistake is found, and the object without it passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from deploy.validation import objects
from deploy.validation.schemas import Schemas, strictly

Object = dict[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
DEFINITIONS: Object = {
    META: {"type": "object", "properties": {"name": {"type": "string"}}},
    "io.k8s.api.core.v1.Thing": {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"#/definitions/{META}"},
            "spec": {"$ref": "#/definitions/io.k8s.api.core.v1.ThingSpec"},
        },
        "x-kubernetes-group-version-kind": [{"group": "", "kind": "Thing", "version": "v1"}],
    },
    "io.k8s.api.core.v1.ThingSpec": {
        "type": "object",
        "properties": {
            "port": {"type": "string", "format": "int-or-string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "size": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
            "properties": {"type": "array", "items": {"type": "string"}},
        },
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
}
CUSTOM: Object = {
    "spec": {
        "group": "example.com",
        "names": {"kind": "Custom"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "metadata": {"type": "object"},
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "at": {"x-kubernetes-int-or-string": True},
                                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                },
                            },
                        },
                    }
                },
            }
        ],
    }
}


def thing(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec}


def custom(**spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Custom", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(
    "good",
    [
        thing(),
        thing(port=80),
        thing(port="http"),
        thing(labels={"any": "text"}),
        thing(size="1.5Gi"),
        thing(size=2),
        thing(properties=["a field may have this name"]),
        custom(at="10%", any={"what": "ever"}),
    ],
)
def test_what_kubernetes_takes_is_no_problem(good: Object) -> None:
    assert not list(Schemas(DEFINITIONS, [CUSTOM]).problems(good))


@pytest.mark.parametrize(
    "bad",
    [
        thing(prot=80),
        thing(port=True),
        thing(labels={"number": 1}),
        thing(size="much"),
        thing(port=None),
        thing() | {"metadata": {"nam": "a"}},
        {"apiVersion": "v1", "kind": "Thing"},
        {"apiVersion": "v2", "kind": "Thing", "spec": {}},
        custom(att="10%"),
        custom(at=1.5),
        custom() | {"metadata": {"nam": "a"}},
    ],
)
def test_what_kubernetes_does_not_know_is_a_problem(bad: Object) -> None:
    assert list(Schemas(DEFINITIONS, [CUSTOM]).problems(bad))


def test_strictness_reaches_into_lists_and_alternatives() -> None:
    inner = {"properties": {"a": {"type": "string"}}}
    made = strictly({"items": inner, "anyOf": [inner]})
    assert made["items"]["additionalProperties"] is False
    assert made["anyOf"][0]["additionalProperties"] is False


# -- objects that have to fit together ---------------------------------------------------------------------------------

LABELS = {"app.kubernetes.io/name": "tickwork", "app.kubernetes.io/component": "executor"}


def release() -> list[Object]:
    pod = {
        "serviceAccountName": "tickwork",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 45,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "env": [{"name": "TICKWORK_DRAIN", "value": "30"}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"requests": {"cpu": 1, "memory": 1}, "limits": {"memory": 1}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                **{probe: {} for probe in objects.PROBES},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return [
        {"kind": "ServiceAccount", "metadata": {"name": "tickwork"}},
        {
            "kind": "Deployment",
            "metadata": {"name": "executor"},
            "spec": {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": pod}},
        },
        {"kind": "ScaledObject", "metadata": {"name": "executor"}, "spec": {"scaleTargetRef": {"name": "executor"}}},
        {
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "executor"},
            "spec": {"selector": {"matchLabels": LABELS}},
        },
        {
            "kind": "Service",
            "metadata": {"name": "tickwork"},
            "spec": {"selector": {"app.kubernetes.io/name": "tickwork"}},
        },
    ]


def test_a_release_that_fits_together_is_no_problem() -> None:
    assert not list(objects.problems(release()))


def _pod(found: list[Object]) -> Object:
    pod: Object = found[1]["spec"]["template"]["spec"]
    return pod


def _container(found: list[Object]) -> Object:
    container: Object = _pod(found)["containers"][0]
    return container


def _hook(found: list[Object]) -> None:
    found[1]["metadata"]["annotations"] = {"helm.sh/hook": "pre-install"}


BREAKS: dict[str, Callable[[list[Object]], object]] = {
    "two of a name": lambda found: found.append(copy.deepcopy(found[0])),
    "a hook with an account that is not made yet": _hook,
    "a token": lambda found: _pod(found).pop("automountServiceAccountToken"),
    "root": lambda found: _pod(found)["securityContext"].pop("runAsNonRoot"),
    "no user": lambda found: _pod(found)["securityContext"].update(runAsUser=0),
    "no seccomp": lambda found: _pod(found)["securityContext"].pop("seccompProfile"),
    "privileges": lambda found: _container(found)["securityContext"].pop("allowPrivilegeEscalation"),
    "a writable root": lambda found: _container(found)["securityContext"].pop("readOnlyRootFilesystem"),
    "capabilities": lambda found: _container(found)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    "no limit of memory": lambda found: _container(found)["resources"].pop("limits"),
    "a password in the open": lambda found: _container(found)["env"].append({"name": "DB_PASSWORD", "value": "a"}),
    "a mount of nothing": lambda found: _pod(found).pop("volumes"),
    "a stranger's pods": lambda found: found[1]["spec"]["selector"].update(matchLabels={"app": "other"}),
    "a probe that is missing": lambda found: _container(found).pop("readinessProbe"),
    "killed while it drains": lambda found: _pod(found).update(terminationGracePeriodSeconds=30),
    "scaling of nobody": lambda found: found[2]["spec"]["scaleTargetRef"].update(name="other"),
    "two who say how many": lambda found: found[1]["spec"].update(replicas=3),
    "nobody who says how many": lambda found: found.pop(2),
    "a budget for nobody": lambda found: found[3]["spec"]["selector"].update(matchLabels={"app": "other"}),
    "a service of nobody": lambda found: found[4]["spec"].update(selector={"app": "other"}),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_does_not_fit_is_found(what: str) -> None:
    found = release()
    BREAKS[what](found)
    assert list(objects.problems(found))
