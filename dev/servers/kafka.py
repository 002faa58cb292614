"""Apache Kafka in KRaft mode: one node that is broker and controller, with a small heap."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import string
import subprocess
from pathlib import Path

from . import downloads
from .place import DEV, Entry, Place
from .probes import kafka as probe
from .process import Launch
from .trouble import ServiceError

FORMAT_SECONDS = 120
HEAP = ["-Xms256m", "-Xmx512m"]


class Kafka:
    """No topic is made by itself: auto.create.topics.enable is off (dev/kafka/server.properties)."""

    name = "kafka"
    port_names: tuple[str, ...] = ("port", "controller")
    start_seconds = 120.0
    stop_signal = signal.SIGTERM
    stop_seconds = 20.0

    def secrets(self) -> dict[str, str]:
        # As Kafka's own tool makes them, with a first character that no command line takes for an option.
        return {"cluster_id": base64.urlsafe_b64encode(b"T" + secrets.token_bytes(15)).decode().rstrip("=")}

    def install(self, cache: Path) -> None:
        downloads.kafka_jars(cache)

    def prepare(self, place: Place, entry: Entry) -> Launch:
        folder = place.of(self.name)
        data = folder / "data"
        settings = folder / "server.properties"
        template = string.Template((DEV / "kafka" / "server.properties").read_text())
        settings.write_text(template.substitute(entry.ports, data=data))
        java = [
            downloads.java(),
            *HEAP,
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            f"-Dlog4j2.configurationFile={DEV / 'kafka' / 'log4j2.yaml'}",
            "-cp",
            os.fspath(downloads.kafka_jars(place.cache) / "*"),
        ]
        if not (data / "meta.properties").exists():
            storage = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", entry.secrets["cluster_id"]]
            with place.log(self.name).open("ab") as log:
                done = subprocess.run(
                    [*storage, "--config", settings], stdout=log, stderr=log, check=False, timeout=FORMAT_SECONDS
                )
            if done.returncode:
                raise ServiceError(
                    f"its data folder cannot be made; what its storage tool said: {place.log(self.name)}"
                )
        return Launch([*java, "kafka.Kafka", settings], folder)

    def compose(self, place: Place, entry: Entry) -> dict[str, str]:
        return {"KAFKA_PORT": str(entry.ports["port"]), "KAFKA_CLUSTER_ID": entry.secrets["cluster_id"]}

    def check(self, entry: Entry) -> None:
        probe.check(entry.ports["port"])

    def open(self, entry: Entry) -> None:
        self.check(entry)

    def variables(self, entry: Entry) -> dict[str, str]:
        return {"TICKWORK_KAFKA_URL": f"kafka://127.0.0.1:{entry.ports['port']}"}

    def litter(self, entry: Entry) -> list[Path]:
        return []
