"""What `tickwork doctor` says of Kafka: whether topics keep what was acknowledged, and who is there to take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.bus.kafka.examination import examine
from tickwork.cli import output
from tickwork.cli.doctor import Finding
from tickwork.cli.doctor_cloud import clock_of, listed, tls_of
from tickwork.executor.worker import GROUP as EXECUTORS
from tickwork.model import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tickwork.adapters.bus.kafka.examination import Examination, Topic
    from tickwork.ports import Clock

TOPICS = (
    messages.DATA_PLANE,
    messages.CONTROL_PLANE,
    messages.TASK_INPUTS,
    messages.PLAN_INPUTS,
    messages.CANCELLATIONS,
    messages.RECEIPTS,
    messages.DEAD_LETTERS,
)
"""How the topics of a tenant begin."""

GROUPS = {
    messages.DATA_PLANE: "data-plane",
    messages.CONTROL_PLANE: "control-plane",
    EXECUTORS: "executor",
}
"""The groups that have to have members, and the role that joins each."""

DAY = 24 * 60 * 60 * 1000
"""Milliseconds; for less long no message should be kept: a weekend's outage costs searching, not only waiting."""

FEW = 3
"""Replicas that outlive the loss of a broker while another one is being upgraded."""


async def kafka(url: str, clock: Clock, limit: float) -> list[Finding]:
    """All that is to be said of the brokers that `url` names. StorageError when none answers."""
    seen = await examine(url, clock, limit, TOPICS, GROUPS)
    brokers = output.count(seen.brokers, "broker")
    text = f"{brokers} at {seen.label}, listed topics in {output.milliseconds(seen.seconds * 1_000)}; {seen.client}"
    findings = [
        Finding("kafka", "ok", text),
        tls_of(
            "kafka", seen.hosts, "Give the brokers a TLS listener, and add tls=true to TICKWORK_BUS_URL.",
            encrypted=seen.encrypted,
        ),
        _published(seen),
        *_brokers(seen),
        *_topics(seen),
        *_members(seen),
        clock_of("kafka", seen.probe.asked, seen.probe.told, seen.probe.doubt),
    ]  # fmt: skip
    if seen.withheld:
        todo = "Grant DescribeConfigs on the cluster and its topics, and Describe on the groups, to see it."
        findings.append(Finding("kafka rights", "note", f"cannot be told: {'; '.join(seen.withheld)}", todo))
    return findings


def _published(seen: Examination) -> Finding:
    if seen.probe.refusal:
        todo = "Grant Create, Describe and Write on Tickwork's topics, and bring enough brokers back."
        return Finding("kafka publish", "bad", seen.probe.refusal, todo)
    took = output.milliseconds(seen.probe.seconds * 1_000)
    return Finding("kafka publish", "ok", f"a message was on all replicas in sync in {took}")


def _brokers(seen: Examination) -> Iterator[Finding]:
    """What topics that are made, or come by themselves, would be like."""
    defaults, options, check = seen.defaults, seen.options, "kafka brokers"
    if defaults.get("auto.create.topics.enable") == "true":
        yield Finding(
            check,
            "bad",
            "auto.create.topics.enable is true: a topic that was lost comes back with the brokers' settings in place "
            "of Tickwork's, before Tickwork can make it",
            "Set auto.create.topics.enable=false on the brokers.",
        )
    if seen.brokers > 1 and not options.replication and _number(defaults, "default.replication.factor", FEW) < FEW:
        yield Finding(
            check,
            "bad",
            f"new topics get default.replication.factor {defaults['default.replication.factor']}",
            "Add replication=3&min_insync=2 to TICKWORK_BUS_URL, or change the brokers' default.",
        )
    if seen.offsets is not None and seen.brokers > 1 and seen.offsets.replication < min(FEW, seen.brokers):
        yield Finding(
            check,
            "bad",
            f"__consumer_offsets has {output.count(seen.offsets.replication, 'replica')}: with its broker goes how far "
            "the groups are",
            "Reassign it to 3 replicas, and set offsets.topic.replication.factor=3.",
        )
    if 0 < _number(defaults, "offsets.retention.minutes", 0) < 24 * 60:
        yield Finding(
            check,
            "bad",
            f"offsets.retention.minutes is {defaults['offsets.retention.minutes']}: groups nobody is in are forgotten",
            "Set offsets.retention.minutes to 10080, a week.",
        )
    if seen.brokers == 1:
        yield Finding(
            check,
            "note",
            "there is one: while it is away nothing moves, and what was on its way is found again by the sweeper",
            "Three brokers, and replication=3&min_insync=2 in TICKWORK_BUS_URL, go on without one.",
        )


def _topics(seen: Examination) -> Iterator[Finding]:
    """Each thing that is wrong with topics, and with which."""
    topics = [topic for topic in seen.topics if topic.tenant]
    wrong = list(_wrong_topics(seen))
    tenants, known = len({topic.tenant for topic in topics}), [topic for topic in topics if topic.settings]
    text = f"{len(topics)} of {output.count(tenants, 'tenant')}"
    if not topics:
        text = "of tenants there are none yet; they are made when they are first used"
    elif len(known) < len(topics):
        text += f"; the settings of {len(known)} were read"
    if not wrong:
        yield Finding("kafka topics", "ok", text)
        return
    yield Finding("kafka topics", "note", text)
    yield from wrong


def _wrong_topics(seen: Examination) -> Iterator[Finding]:
    options, brokers = seen.options, seen.brokers
    rules: tuple[tuple[str, Callable[[Topic], str], str], ...] = (
        (
            "replication.factor",
            lambda topic: few_replicas(topic, options.replication, brokers),
            "kafka-reassign-partitions.sh with 3 replicas; replication=3 in TICKWORK_BUS_URL is for new topics.",
        ),
        (
            "min.insync.replicas",
            lambda topic: insync_of(topic, options.min_insync),
            f"{_set('min.insync.replicas=2')}, with replication 3.",
        ),
        ("unclean.leader.election.enable", _unclean, _set("unclean.leader.election.enable=false")),
        ("cleanup.policy", _compacted, _set("cleanup.policy=delete")),
        ("retention.ms", _short, _set("retention.ms=604800000")),
        ("retention.bytes", _small, _set("retention.bytes=-1")),
        (
            "max.message.bytes",
            lambda topic: _narrow(topic, options.max_message_bytes),
            _set(f"max.message.bytes={options.max_message_bytes}"),
        ),
        (
            "replicas",
            lambda topic: "" if not topic.leaderless else "partitions without a leader",
            "Bring the brokers back: nothing goes in or out meanwhile.",
        ),
    )
    for setting, judge, todo in rules:
        found: dict[str, list[str]] = {}
        for topic in seen.topics:
            if said := judge(topic):
                found.setdefault(said, []).append(topic.name)
        for said, names in found.items():
            yield Finding(f"kafka {setting}", "bad", f"{said}: {listed(names)}", todo.replace("TOPIC", names[0]))
    behind = [topic.name for topic in seen.topics if topic.behind and not topic.leaderless]
    if behind:
        yield Finding("kafka replicas", "note", f"not all in sync: {listed(behind)}", "Look at the brokers.")
    narrow = [topic.name for topic in seen.topics if topic.tenant and topic.partitions < options.partitions]
    if narrow:
        said = f"fewer than the {options.partitions} of TICKWORK_BUS_URL: {listed(narrow)}"
        todo = "More partitions move keys: add them while no lifetime runs, or leave them; fewer processes share them."
        yield Finding("kafka partitions", "note", said, todo)


def _set(what: str) -> str:
    return f"kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config {what}"


def few_replicas(topic: Topic, wanted: int, brokers: int) -> str:
    """What is wrong with its replicas, empty when there are enough. `wanted` 0: the URL does not say."""
    least = wanted or min(2, brokers)
    if topic.replication >= least:
        return ""
    where = "of TICKWORK_BUS_URL" if wanted else "that outlive a broker"
    return f"{output.count(topic.replication, 'replica')}, fewer than the {least} {where}"


def insync_of(topic: Topic, wanted: int) -> str:
    """What is wrong with how many replicas have to have a message, empty when nothing is. `wanted` as above."""
    found = _number(topic.settings, "min.insync.replicas", 0)
    if not found:
        return ""
    if found > topic.replication:
        return f"{found}, and there is {output.count(topic.replication, 'replica')}: no more than that has a message"
    if found == topic.replication and found > 1:
        return f"{found} of {topic.replication} replicas: nothing can be published while one broker is away"
    if wanted and found < wanted:
        return f"{found}, fewer than the {wanted} of TICKWORK_BUS_URL"
    if found == 1 and topic.replication > 1:
        return f"1 of {topic.replication} replicas: what one broker alone has is acknowledged, and lost with it"
    return ""


def _unclean(topic: Topic) -> str:
    if topic.settings.get("unclean.leader.election.enable") != "true":
        return ""
    return "true: a replica that lags may lead, and what it has not is lost"


def _compacted(topic: Topic) -> str:
    policy = topic.settings.get("cleanup.policy") or ""
    return f"{policy}: of each lifetime only the last message is kept" if "compact" in policy else ""


def _short(topic: Topic) -> str:
    kept = _number(topic.settings, "retention.ms", -1)
    if not 0 <= kept < DAY:
        return ""
    return f"{kept / 3_600_000:,.1f} h: what nobody took by then is lost, and has to be found again by the sweeper"


def _small(topic: Topic) -> str:
    kept = _number(topic.settings, "retention.bytes", -1)
    return f"{kept:,}: what comes fast pushes out what nobody took yet" if kept >= 0 else ""


def _narrow(topic: Topic, wanted: int) -> str:
    found = _number(topic.settings, "max.message.bytes", wanted)
    if found >= wanted or not topic.tenant:
        return ""
    return f"{found:,}, less than the {wanted:,} of TICKWORK_BUS_URL: large messages are refused"


def _number(settings: dict[str, str | None], name: str, default: int) -> int:
    try:
        return int(settings.get(name) or default)
    except ValueError:
        return default


def _members(seen: Examination) -> Iterator[Finding]:
    """Whether anybody is there to work."""
    if not seen.members:
        return
    missing = [GROUPS[group] for group, members in seen.members.items() if not members]
    there = ", ".join(f"{GROUPS[group]} {members}" for group, members in seen.members.items() if members)
    if missing:
        todo = f"tickwork serve --roles {','.join(missing)}"
        yield Finding("kafka groups", "note", f"nobody serves as {' or '.join(missing)} now", todo)
    if there:
        yield Finding("kafka groups", "ok", f"members: {there}")
