"""What a kafka:// URL says: where the brokers are, and, in its query, how this process is to use them.

    kafka://user:password@broker1:9093,broker2:9093/prefix?tls=true&replication=3&min_insync=2

The path is a prefix of all topics and groups, for installations that share brokers. What the query leaves out is taken
from TICKWORK_KAFKA_<OPTION> (TICKWORK_KAFKA_PASSWORD), then from the defaults here. No secret is in a text for people.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from tickwork.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("tickwork.adapters.bus.kafka")

_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
_HELP: Final = "Write kafka://HOST:9092 or kafka://USER:PASSWORD@HOST1:9093,HOST2:9093/PREFIX?tls=true (docs/kafka.md)."


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this process uses Kafka. Times in seconds where nothing else is said."""

    partitions: int = 4
    """Of a topic that Tickwork makes: at most so many members of a group share the work of one tenant."""
    replication: int = 0
    """Of a topic that Tickwork makes; 0: the broker's default."""
    min_insync: int = 0
    """`min.insync.replicas` of a topic that Tickwork makes; 0: the broker's default."""
    max_message_bytes: int = 4 * 1024 * 1024
    """The largest message: several payloads in place, each up to 1 MiB, and their headers."""
    delivery_timeout: float = 30.0
    """How long a publish goes on trying."""
    connect_timeout: float = 5.0
    """How long start() waits for a broker."""
    session_timeout: float = 6.0
    """After so long without a sign of life, a member's partitions go to others. Brokers take no less than 6."""
    max_poll_interval: float = 300.0
    """After so long without a poll, too. Slow work does not count: this process polls while it goes on."""
    handover: float = 5.0
    """How long a partition that goes to another member waits for what is in hand to be acknowledged."""
    discovery: float = 30.0
    """How often all topics are listed. A topic that Tickwork makes is announced and found at once."""
    linger_ms: float = 0.0
    """Milliseconds that a message waits for others to travel with."""
    compression: str = "none"
    client_id: str = "tickwork"
    tls: bool = False
    ca: str = ""
    """File with the certificates that sign the brokers'; empty: the system's."""
    cert: str = ""
    key: str = ""
    key_password: str = ""
    sasl: str = ""
    """Mechanism; SCRAM-SHA-512 when there is a user and none is named."""
    username: str = ""
    password: str = ""


class Address:
    """A parsed URL. `label` is for people; the client's settings have the secrets and go to the client alone."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        scheme, _, rest = url.partition("://")
        if scheme != "kafka":
            raise UsageError(f"The URL of a Kafka bus begins with kafka://. {_HELP}")
        place, _, query = rest.partition("?")
        netloc, _, path = place.partition("/")
        login, _, hosts = netloc.rpartition("@")
        self.brokers = ",".join(_broker(host) for host in hosts.split(","))
        path = path.rstrip("/")
        if path and not _PREFIX.fullmatch(path):
            raise UsageError(f"The path of the Kafka URL is a prefix of names: letters, digits and -, not `{path}`.")
        self.prefix = f"{path}." if path else ""
        self.options = _options(query, login, environment)
        self.label = self.brokers + (f" (prefix {path})" if path else "")
        self.logger: Any = log
        """Who is told what clients have to say."""

    def __repr__(self) -> str:
        return f"Address({self.label})"

    def client(self) -> dict[str, Any]:
        """Settings of every client: where, as whom, and how soon it notices that a broker is gone and back."""
        options = self.options
        settings: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "client.id": options.client_id,
            "logger": self.logger,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "socket.timeout.ms": 6000,
            "socket.connection.setup.timeout.ms": 5000,
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "message.max.bytes": options.max_message_bytes + 4096,
        }
        user = bool(options.username)
        settings["security.protocol"] = ("SASL_" if user else "") + ("SSL" if options.tls else "PLAINTEXT")
        if user:
            settings["sasl.mechanism"] = options.sasl or "SCRAM-SHA-512"
            settings["sasl.username"], settings["sasl.password"] = options.username, options.password
        files = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
        files["key_password"] = "ssl.key.password"
        return settings | {to: getattr(options, name) for name, to in files.items() if getattr(options, name)}

    def producer(self) -> dict[str, Any]:
        """Settings of the producer: every replica in sync has it, once, in order per key, or it is an error."""
        options = self.options
        return self.client() | {
            "acks": "all",
            "enable.idempotence": True,
            "delivery.timeout.ms": int(options.delivery_timeout * 1000),
            "request.timeout.ms": 6000,
            "retry.backoff.ms": 50,
            "topic.metadata.propagation.max.ms": 3000,
            "linger.ms": options.linger_ms,
            "compression.type": options.compression,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 65_536,
        }

    def consumer(self, group: str, place: str = "") -> dict[str, Any]:
        """Settings of a consumer: positions are committed by us alone, and what has none starts at its beginning.

        `place`: a name that no other member of the group has. Whoever joins under it again takes its own place at once,
        where without one the group would wait until the session of the member that it was has run out.
        """
        options = self.options
        static = {"group.instance.id": place} if place else {}
        settings = {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(options.session_timeout * 1000),
            "heartbeat.interval.ms": int(min(500.0, options.session_timeout * 1000 / 4)),
            "max.poll.interval.ms": int(max(options.max_poll_interval, options.session_timeout) * 1000),
            "isolation.level": "read_committed",
            # How much lies ready: it is thrown away when its topic is kept back. A larger message comes none the less.
            "fetch.message.max.bytes": min(options.max_message_bytes, 1024 * 1024),
            "queued.min.messages": 2000,
            "queued.max.messages.kbytes": 16_384,
            # A client asks a broker for one thing at a time, and this long when nothing comes: what was kept back, and
            # is to be fetched again, has to wait for the answer.
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
            "fetch.queue.backoff.ms": 20,
            "allow.auto.create.topics": False,
        }
        return self.client() | settings | static


def _broker(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon:
        name, port = host, "9092"
    if not name or not port.isdigit() or not 0 < int(port) < 65536 or re.search(r"\s", name):
        raise UsageError(f"The Kafka URL names no broker, or one whose port is no number. {_HELP}")
    return f"{name}:{port}"


def _options(query: str, login: str, environment: Mapping[str, str]) -> Options:
    given = {name: environment.get(f"TICKWORK_KAFKA_{name.upper()}", "") for name in Options.__struct_fields__}
    given = {name: value for name, value in given.items() if value}
    given |= dict(parse_qsl(query, keep_blank_values=True))
    if login:
        given["username"], _, secret = (unquote(part) for part in login.partition(":"))
        given |= {"password": secret} if secret else {}
    try:
        options = msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"An option of the Kafka bus is wrong: {error}. docs/kafka.md lists them.") from None
    for name in Options.__struct_fields__:
        value = getattr(options, name)
        if isinstance(value, float) and not (0 < value <= 86_400 or (value == 0 and name in ("linger_ms", "handover"))):
            raise UsageError(f"`{name}` of the Kafka bus has to be more than 0 seconds, and at most a day.")
        if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value < 2**30:
            raise UsageError(f"`{name}` of the Kafka bus is out of range.")
    if not 1 <= options.partitions <= 1000 or not 1024 <= options.max_message_bytes <= 64 * 1024 * 1024:
        raise UsageError("`partitions` of the Kafka bus is 1 to 1000, `max_message_bytes` 1024 to 67108864 (64 MiB).")
    if 0 < options.replication < options.min_insync:
        raise UsageError("`min_insync` of the Kafka bus is above `replication`: nothing could ever be published.")
    if options.sasl and options.sasl not in _MECHANISMS:
        raise UsageError(f"`sasl` of the Kafka bus is one of: {', '.join(_MECHANISMS)}.")
    if options.compression not in _COMPRESSIONS:
        raise UsageError(f"`compression` of the Kafka bus is one of: {', '.join(_COMPRESSIONS)}.")
    if options.sasl and not options.username:
        raise UsageError("`sasl` of the Kafka bus needs a user: kafka://USER:PASSWORD@..., or TICKWORK_KAFKA_USERNAME.")
    return options
