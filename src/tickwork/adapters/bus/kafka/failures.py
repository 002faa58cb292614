"""What Kafka's errors mean for the one who reads them: what happened, at which brokers, and what to do next."""

# ruff: noqa: SLF001 - the client writes the codes of its own errors with an underscore; they are public all the same

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from tickwork.errors import ServerAway, StorageError

_SAY: Final = {
    KafkaError._MSG_TIMED_OUT: "no broker took the message in time. Check that the brokers run and that enough "
    "replicas are in sync; `delivery_timeout` in the URL says how long to try",
    KafkaError._TIMED_OUT: "no broker answered in time. Check the host, the port, tls in the URL, and that Kafka runs",
    KafkaError._TRANSPORT: "no broker can be reached. Check the host, the port, tls in the URL, and that Kafka runs",
    KafkaError._ALL_BROKERS_DOWN: "no broker can be reached. Check the host, the port, and that Kafka runs",
    KafkaError._RESOLVE: "the broker's name is not known here. Check the host in the URL",
    KafkaError._SSL: "TLS failed. Check `ca`, `cert` and `key`, and that the port is one for TLS",
    KafkaError._AUTHENTICATION: "the broker did not accept the login. Check user, password and `sasl`",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker did not accept the login. Check user, password and `sasl`",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not use the topic. Grant Create, Describe, Read and Write on "
    "Tickwork's topics",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not make topics or write idempotently. Grant Create on "
    "Tickwork's topics and IdempotentWrite",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the group. Grant Read on Tickwork's groups",
    KafkaError.MSG_SIZE_TOO_LARGE: "the message is larger than `max_message_bytes` in the URL, or than the topic's "
    "`max.message.bytes`. Raise both, or keep payloads out of the message",
    KafkaError.NOT_ENOUGH_REPLICAS: "fewer replicas are in sync than `min.insync.replicas`. Bring brokers back",
    KafkaError.INVALID_REPLICATION_FACTOR: "there are fewer brokers than `replication` in the URL",
    KafkaError.POLICY_VIOLATION: "the brokers' policy refuses topics like this. Check `partitions` and `replication`",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic is gone. Send again: it is made anew",
    KafkaError._UNKNOWN_TOPIC: "the topic is gone. Send again: it is made anew",
    KafkaError._UNKNOWN_PARTITION: "the topic has lost partitions. Send again",
    KafkaError._PURGE_QUEUE: "the bus was stopped before it was sent",
}

GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
"""The topic does not exist (any more)."""

LEADERLESS: Final = KafkaError._NOENT
"""The client knows of no leader for some partition."""

HOPELESS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError._FATAL,
    }
)
"""Trying again does not mend it."""

EXPELLED: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID})
"""The group goes on without this member, and with its partitions."""

_AWAY: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.INVALID_REPLICATION_FACTOR,
    }
)
"""No broker is there, or fewer than are needed: they may be starting."""

HAS_MEMBERS: Final = frozenset(
    {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS}
)
"""A commit is refused since the group has members, and this one is not among them now."""


def cause(error: KafkaException | KafkaError) -> KafkaError:
    """The error inside an exception of the client."""
    if isinstance(error, KafkaError):
        return error
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def is_fatal(error: KafkaException) -> bool:
    """Whether the client that raised it can do nothing any more."""
    inner = cause(error)
    return inner.fatal() or inner.code() == KafkaError._FATAL


def refused(
    what: str, label: str, error: KafkaException | KafkaError, *, last: KafkaError | None = None
) -> StorageError:
    """The error for people: what was tried, where, why it failed. ServerAway when brokers are away, or not ready.

    `last`: what the client said by itself meanwhile, which tells more of why nobody answered.
    """
    inner = cause(error)
    said = _SAY.get(inner.code())
    text = f"{said} ({inner.name()}: {inner.str()})" if said else f"{inner.name()}: {inner.str()}"
    text = f"Kafka at {label}: {what} failed: {text}."
    if last is not None:
        inner, text = last, f"{text} The client's last words: {last.str()}"
    away = inner.code() in _AWAY or (inner.retriable() and inner.code() not in HOPELESS)
    return ServerAway(text) if away else StorageError(text)
