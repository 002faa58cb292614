"""What no schema says of rendered objects: that they fit together, and that pods are as walled in as the docs say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

Object = dict[str, Any]

HOOK = "helm.sh/hook"
SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY", "SSE_C_KEY", "MIGRATE_URL", "STATE_URL", "KV_URL")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def name_of(found: Object) -> str:
    """How people are told which object is meant."""
    return f"{found.get('kind')}/{found.get('metadata', {}).get('name')}"


def problems(objects: Sequence[Object]) -> Iterator[str]:
    """Everything that is wrong with what one release consists of."""
    for name, times in Counter(name_of(found) for found in objects).items():
        if times > 1:
            yield f"{name} is there {times} times"
    for found in objects:
        pod = _pod(found)
        if pod is not None:
            for problem in (*_account(found, pod, objects), *_walls(pod), *_volumes(pod)):
                yield f"{name_of(found)}: {problem}"
        if found["kind"] == "Deployment":
            for problem in _deployment(found):
                yield f"{name_of(found)}: {problem}"
    yield from _scaling(objects)
    yield from _budgets(objects)
    yield from _services(objects)


def _pod(found: Object) -> Object | None:
    pod: Object | None = found["spec"]["template"]["spec"] if found["kind"] in ("Deployment", "Job") else None
    return pod


def _account(found: Object, pod: Object, objects: Sequence[Object]) -> Iterator[str]:
    account = pod.get("serviceAccountName")
    made = account in {other["metadata"]["name"] for other in objects if other["kind"] == "ServiceAccount"}
    if made and HOOK in found["metadata"].get("annotations", {}):
        yield f"runs before its ServiceAccount {account} is made"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token of the cluster's API, which it has no use for"


def _walls(pod: Object) -> Iterator[str]:
    whole = pod.get("securityContext", {})
    if not whole.get("runAsNonRoot") or not whole.get("runAsUser"):
        yield "may run as root"
    if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "may gain privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield "may write to its root"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "keeps capabilities"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield "says not how much CPU and memory it needs, or has no limit of memory"
        for variable in container.get("env", ()):
            if "value" in variable and any(word in variable["name"] for word in SECRET_WORDS):
                yield f"has {variable['name']} in the open: take it from a Secret"


def _volumes(pod: Object) -> Iterator[str]:
    there = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in there:
                yield f"mounts {mount['name']}, and there is no such volume"


def _deployment(found: Object) -> Iterator[str]:
    template = found["spec"]["template"]
    if not selects(found["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]):
        yield "does not select its own pods"
    pod = template["spec"]
    for container in pod["containers"]:
        yield from (f"has no {probe}" for probe in PROBES if probe not in container)
        told = {variable["name"]: variable.get("value", "") for variable in container.get("env", ())}
        if pod.get("terminationGracePeriodSeconds", 30) <= float(told.get("TICKWORK_DRAIN", 30)):
            yield "is killed before its drain is over"


def _scaling(objects: Sequence[Object]) -> Iterator[str]:
    deployments = {found["metadata"]["name"]: found for found in objects if found["kind"] == "Deployment"}
    scaled: set[str] = set()
    for found in objects:
        if found["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject"):
            continue
        target = found["spec"]["scaleTargetRef"]["name"]
        scaled.add(target)
        if target not in deployments:
            yield f"{name_of(found)} scales {target}, and there is no such Deployment"
        elif "replicas" in deployments[target]["spec"]:
            yield f"{name_of(found)} and the Deployment both say how many there are: upgrades would undo the scaling"
    for name in deployments.keys() - scaled:
        if "replicas" not in deployments[name]["spec"]:
            yield f"nobody says how many of Deployment/{name} there are"


def _budgets(objects: Sequence[Object]) -> Iterator[str]:
    pods = {name_of(found): _labels(found) for found in objects if found["kind"] == "Deployment"}
    for found in objects:
        if found["kind"] == "PodDisruptionBudget":
            wanted = found["spec"]["selector"]["matchLabels"]
            chosen = [name for name, labels in pods.items() if selects(wanted, labels)]
            if len(chosen) != 1:
                yield f"{name_of(found)} is for the pods of {chosen or 'nobody'}; it should be for one Deployment"


def _services(objects: Sequence[Object]) -> Iterator[str]:
    deployments = [found for found in objects if found["kind"] == "Deployment"]
    for found in objects:
        if found["kind"] == "Service":
            for deployment in deployments:
                if not selects(found["spec"]["selector"], _labels(deployment)):
                    yield f"{name_of(found)} does not find the pods of {name_of(deployment)}"


def _labels(deployment: Object) -> dict[str, str]:
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(wanted: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether these labels have all that is wanted."""
    return wanted.items() <= labels.items()
