"""An S3 server: SeaweedFS, all its parts in one process, with one access key and one bucket."""

from __future__ import annotations

import json
import secrets
import signal
from pathlib import Path
from urllib.parse import urlencode

from . import downloads
from .place import Entry, Place, write_private
from .probes import NotReady
from .probes.s3 import REGION, S3Client
from .process import Launch

BUCKET = "tickwork"
PROBE = f"/{BUCKET}/.dev-services"


class S3:
    """SSE-C and SSE-S3 work; SSE-KMS does not, there is no key service here."""

    name = "s3"
    port_names: tuple[str, ...] = (
        "port",
        "s3_grpc",
        "master",
        "master_grpc",
        "volume",
        "volume_grpc",
        "filer",
        "filer_grpc",
    )
    start_seconds = 60.0
    stop_signal = signal.SIGTERM
    # It would take a quarter of a minute to let go of connections. What it has acknowledged is with the system already,
    # so nothing is lost when it is killed after this.
    stop_seconds = 2.0

    def secrets(self) -> dict[str, str]:
        return {"key": secrets.token_hex(10), "secret": secrets.token_hex(20), "sse_key": secrets.token_hex(32)}

    def install(self, cache: Path) -> None:
        downloads.wheels(cache)

    def prepare(self, place: Place, entry: Entry) -> Launch:
        folder = place.of(self.name)
        (folder / "data").mkdir(exist_ok=True)
        ports = entry.ports
        options = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",  # it would report to its makers
            "master.electionTimeout": "1s",  # it waits for a vote of others, and there are none
            "master.port": ports["master"],
            "master.port.grpc": ports["master_grpc"],
            "master.volumeSizeLimitMB": 256,
            "volume.max": 0,  # as many as the disk holds
            "volume.port": ports["volume"],
            "volume.port.grpc": ports["volume_grpc"],
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": ports["filer"],
            "filer.port.grpc": ports["filer_grpc"],
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.port": ports["port"],
            "s3.port.grpc": ports["s3_grpc"],
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": "s3.sock",
            "s3.config": self._config(folder, entry),
        }
        weed = downloads.wheels(place.cache) / "bin" / "weed"
        flags = [f"-{name}={value}" for name, value in options.items()]
        return Launch(
            [weed, "-logtostderr=true", "server", *flags], folder, {"WEED_S3_SSE_KEY": entry.secrets["sse_key"]}
        )

    def compose(self, place: Place, entry: Entry) -> dict[str, str]:
        config = self._config(place.of(self.name), entry)
        config.chmod(0o644)  # read by the container's user
        return {"S3_PORT": str(entry.ports["port"]), "S3_CONFIG": str(config), "S3_SSE_KEY": entry.secrets["sse_key"]}

    def check(self, entry: Entry) -> None:
        if f"<Name>{BUCKET}</Name>".encode() not in self._client(entry).demand("GET", "/"):
            raise NotReady(f"there is no bucket {BUCKET}")

    def open(self, entry: Entry) -> None:
        client = self._client(entry)
        client.demand("GET", "/")
        if client.call("HEAD", f"/{BUCKET}")[0] != 200:
            client.demand("PUT", f"/{BUCKET}")
        # Its parts find each other one by one; only an object that comes back shows that all have.
        client.demand("PUT", PROBE, b"here")
        if client.demand("GET", PROBE) != b"here":
            raise NotReady("an object came back changed")
        client.demand("DELETE", PROBE)
        self.check(entry)

    def variables(self, entry: Entry) -> dict[str, str]:
        options = {
            "endpoint": f"http://127.0.0.1:{entry.ports['port']}",
            "region": REGION,
            "access_key_id": entry.secrets["key"],
            "secret_access_key": entry.secrets["secret"],
        }
        return {"TICKWORK_S3_URL": f"s3://{BUCKET}?{urlencode(options, safe=':/')}"}

    def litter(self, entry: Entry) -> list[Path]:
        # Sockets whose place cannot be chosen.
        parts = ("master", "volume", "filer", "s3")
        return [Path(f"/tmp/seaweedfs-{part}-grpc-{entry.ports[f'{part}_grpc']}.sock") for part in parts]

    def _client(self, entry: Entry) -> S3Client:
        return S3Client(entry.ports["port"], entry.secrets["key"], entry.secrets["secret"])

    def _config(self, folder: Path, entry: Entry) -> Path:
        credentials = [{"accessKey": entry.secrets["key"], "secretKey": entry.secrets["secret"]}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        path = folder / "identities.json"
        identity = {"name": "tickwork", "credentials": credentials, "actions": actions}
        write_private(path, json.dumps({"identities": [identity]}, indent=2))
        return path
