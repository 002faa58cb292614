"""A broker that lets in only who proves who he is, through TLS alone: a set of its own, begun plain to make its user.

It is the broker of dev/services, with a listener beside the plain one: SASL_SSL, with a certificate for `localhost`
that its own authority, which no system knows, has signed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.adapters import servers
from tests.adapters.certificates import Authority

USER, PASSWORD = "tickwork", "p@ss/word"
STORE = "changeit"
START = 60.0
"""Seconds in which the broker has to take connections."""

SECURE = """
listeners={listeners},SECURE://127.0.0.1:{port}
advertised.listeners={advertised},SECURE://localhost:{port}
listener.security.protocol.map={protocols},SECURE:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.location={folder}/broker.p12
ssl.keystore.type=PKCS12
ssl.keystore.password={store}
ssl.key.password={store}
"""


class SecureBroker(msgspec.Struct, frozen=True):
    """Where it is; `ca`: a file with the certificate of the authority that signed its own."""

    address: str
    ca: Path


@contextmanager
def secure_broker(folder: Path) -> Iterator[SecureBroker]:
    """As long as the block lasts."""
    plain = servers.start("kafka", folder)["TICKWORK_KAFKA_URL"].removeprefix("kafka://")
    try:
        pid = json.loads((folder / "state.json").read_text())["servers"]["kafka"]["pid"]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        _make_user(plain)
    finally:
        servers.end("kafka", folder)
    port = servers.free_port()
    settings = Path(command[-1])
    given = dict(line.split("=", 1) for line in settings.read_text().splitlines() if line and not line.startswith("#"))
    authority = Authority(folder)
    (folder / "broker.p12").write_bytes(_key_store(authority))
    secure = SECURE.format(
        listeners=given["listeners"], advertised=given["advertised.listeners"], port=port, folder=folder, store=STORE,
        protocols=given["listener.security.protocol.map"],
    )  # fmt: skip
    mine = folder / "secure.properties"
    mine.write_text(settings.read_text() + secure)  # of two lines with one name the last one counts
    log = folder / "secure.log"
    with log.open("wb") as output:
        broker = subprocess.Popen([*command[:-1], str(mine)], cwd=folder, stdout=output, stderr=output)
    try:
        _until_open(port, broker, log)
        yield SecureBroker(f"localhost:{port}", authority.file)
    finally:
        broker.terminate()
        broker.wait(30)


def _make_user(plain: str) -> None:
    admin = AdminClient({"bootstrap.servers": plain})
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    made = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, how, PASSWORD.encode())])
    made[USER].result(30)


def _key_store(authority: Authority) -> bytes:
    """The broker's certificate and key, as Java wants them."""
    key = serialization.load_pem_private_key(authority.server.private_key_pem.bytes(), None)
    certificate = x509.load_pem_x509_certificate(authority.server.cert_chain_pems[0].bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(
        b"broker", key, certificate, None, serialization.BestAvailableEncryption(STORE.encode())
    )


def _until_open(port: int, broker: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START
    while True:
        assert broker.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until, log.read_text()[-3000:]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
