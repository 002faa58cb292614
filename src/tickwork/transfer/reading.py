"""Reads a file of an exported lifetime and proves it: after `read` nothing of it has to be believed any more.

What is proved is kept in a temporary file without a name, so a file that cannot be read twice (a pipe), that is packed
or that somebody changes meanwhile is no special case, and memory holds one line at a time. A finding names its line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO, NoReturn

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.graph import graph_from_json
from tickwork.model.ids import TENANT
from tickwork.model.policy import decode_set
from tickwork.model.validation import validate
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.topology import Topology
from tickwork.transfer import lines
from tickwork.transfer.lines import (
    FORMAT,
    MAX_FILE,
    MAX_LIFETIMES,
    MAX_LINE,
    PIECE,
    VERSION,
    BlobLine,
    DataLine,
    EndLine,
    EntryLine,
    ExportInvalid,
    GraphLine,
    Header,
    LifetimeLine,
    PoliciesLine,
    decode_line,
)
from tickwork.transfer.proving import LIFETIME_ID, Proving, Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime, Projection
    from tickwork.model.records import LogEntry, Payload
    from tickwork.orchestrator.replay import Divergence
    from tickwork.transfer.lines import AnyLine

GZIP = b"\x1f\x8b"


class Carried(msgspec.Struct, kw_only=True):
    """A lifetime of the file: its row, its log's place, and what the log comes to."""

    lifetime: Lifetime
    start: int
    """Where its entries begin in the temporary file."""
    records: int
    paused: bool
    """Whether the log leaves it paused, or ended: nothing is sent out before somebody resumes it."""
    projection: Projection
    divergence: Divergence | None


class CarriedBlob(msgspec.Struct):
    """A payload of the file: its place, size and digest."""

    start: int
    size: int
    sha256: str


class Export:
    """A file that was proved. Closing it takes its temporary file away."""

    def __init__(self) -> None:
        self._kept: IO[bytes] = tempfile.TemporaryFile(prefix="tickwork-import-")  # noqa: SIM115 - it is this object's
        self.header = Header(format="", version=0, lifetime_id="", tenant_id="")
        self.graphs: dict[str, tuple[AgentGraph, bytes]] = {}
        self.policies: dict[str, bytes] = {}
        self.blobs: dict[str, CarriedBlob] = {}
        self.lifetimes: list[Carried] = []
        """Children before their parents; the exported one is the last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def keep(self, data: bytes) -> int:
        """Adds bytes to the temporary file: where they begin."""
        start = self._kept.seek(0, 2)
        self._kept.write(data)
        return start

    def keep_entry(self, logged: LogEntry) -> int:
        """The same for an entry."""
        data = lines.STORED.encode(logged)
        return self.keep(len(data).to_bytes(4, "big") + data)

    def check(self, payload: Payload) -> None:
        """Raises Wrong when the file has no such blob, or one of another size or digest than the payload tells."""
        found = self.blobs.get(payload.uri or "")
        if found is None:
            raise Wrong(f"the file has no blob {payload.uri}")
        if (payload.size, payload.sha256) != (found.size, found.sha256):
            raise Wrong(f"the record of {payload.uri} tells another size or digest than the blob has")

    def get(self, payload: Payload) -> bytes:
        """The bytes of a payload that was checked."""
        return self.blob(payload.uri or "")

    def blob(self, uri: str) -> bytes:
        """The bytes of a blob."""
        place = self.blobs[uri]
        self._kept.seek(place.start)
        return self._kept.read(place.size)

    def entries(self, carried: Carried) -> Iterator[LogEntry]:
        """The log of one of the lifetimes. Nothing else is read of the file meanwhile."""
        self._kept.seek(carried.start)
        for _ in range(carried.records):
            size = int.from_bytes(self._kept.read(4), "big")
            yield lines.read_entry(EntryLine(stored=self._kept.read(size)))


def read(file: io.BufferedReader, *, limit: int = MAX_FILE) -> Export:
    """Reads and proves a file, packed with gzip or not. `limit`: bytes that it may have once it is unpacked.

    Raises ExportInvalid with the first thing that is wrong and its line. The caller closes what is returned.
    """
    export = Export()
    try:
        _Reading(export, file, limit).run()
    except BaseException:
        export.__exit__(None, None, None)
        raise
    return export


class _Reading:
    """One pass over the lines, from first to last."""

    def __init__(self, export: Export, file: io.BufferedReader, limit: int) -> None:
        self._export, self._file, self._limit = export, file, limit
        self._number = 0
        self._size = 0
        self._hash = hashlib.sha256()
        self._topologies: dict[str, Topology] = {}
        self._rules: dict[str, Rules] = {}
        self._ids: set[str] = set()

    def run(self) -> None:
        try:
            self._run(self._lines())
        except Wrong as error:
            self._wrong(str(error))

    def _run(self, following: Iterator[AnyLine]) -> None:
        header = next(following)
        if not isinstance(header, Header):
            self._wrong("a file begins with its `header`")
        self._header(header)
        order: tuple[type, ...] = (GraphLine, PoliciesLine, BlobLine, LifetimeLine, EndLine)
        reached = 0
        for line in following:
            place = next((n for n, kind in enumerate(order) if isinstance(line, kind)), None)
            if place is None or place < reached:
                self._wrong(f"a line `{_kind(line)}` does not belong here")
            reached = place
            if isinstance(line, GraphLine):
                self._graph(line)
            elif isinstance(line, PoliciesLine):
                self._policies(line)
            elif isinstance(line, BlobLine):
                self._blob(line, following)
            elif isinstance(line, LifetimeLine):
                self._lifetime(line, following)
        if not self._export.lifetimes or self._export.lifetimes[-1].lifetime.lifetime_id != header.lifetime_id:
            self._wrong(f"its last lifetime is not {header.lifetime_id}, which the header names")
        idle = set(self._export.graphs) - {carried.lifetime.graph_digest for carried in self._export.lifetimes}
        if idle:
            self._wrong(f"no lifetime runs the graph {idle.pop()}")

    # -- lines --------------------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[AnyLine]:
        """Each line, once it is known to be one; the last is `end`, and says that the others are those written."""
        source = self._unpacked()
        while True:
            raw = self._line(source)
            line = self._decoded(raw)
            if isinstance(line, EndLine):
                if (line.lines, line.sha256) != (self._number - 1, self._hash.hexdigest()):
                    self._wrong("the checksum is another than that of the lines before: the file was changed")
                if self._read(source, 1):
                    self._wrong("something follows the last line")
                yield line
                return
            self._hash.update(raw)
            yield line

    def _unpacked(self) -> BinaryIO:
        packed = self._file.peek(len(GZIP))[: len(GZIP)] == GZIP
        return gzip.GzipFile(fileobj=self._file, mode="rb") if packed else self._file  # type: ignore[return-value]  # both read and readline, which is all

    def _line(self, source: BinaryIO) -> bytes:
        self._number += 1
        try:
            raw = source.readline(MAX_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            self._wrong(f"it cannot be unpacked: {error}")
        self._size += len(raw)
        if self._size > self._limit:
            self._wrong(f"unpacked it has more than {self._limit:,} bytes; --max-bytes allows more")
        if len(raw) > MAX_LINE:
            self._wrong(f"the line has more than {MAX_LINE:,} bytes")
        if not raw.endswith(b"\n"):
            self._wrong("the file ends early: its `end` line is missing" if not raw else "the file ends in this line")
        return raw

    def _read(self, source: BinaryIO, size: int) -> bytes:
        try:
            return source.read(size)
        except (OSError, EOFError, zlib.error) as error:
            self._wrong(f"it cannot be unpacked: {error}")

    def _decoded(self, raw: bytes) -> AnyLine:
        try:
            if self._number == 1:
                self._known(msgspec.json.decode(raw))
            return decode_line(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._wrong(f"the line is none of an export: {error}")

    def _known(self, header: object) -> None:
        """A version that is not known here is said before anything else is."""
        named = header if isinstance(header, dict) else {}
        if named.get("format") != FORMAT:
            self._wrong("this is no exported lifetime")
        if named.get("version") != VERSION:
            writer = str(named.get("tickwork", ""))[:40]
            self._wrong(
                f"the file has version {str(named.get('version'))[:20]} (Tickwork {writer}), and this Tickwork reads "
                f"version {VERSION}: install a newer one"
            )

    def _wrong(self, what: str) -> NoReturn:
        raise ExportInvalid(f"line {self._number}: {what}")

    # -- what they say ------------------------------------------------------------------------------------------------

    def _header(self, header: Header) -> None:
        if not LIFETIME_ID.fullmatch(header.lifetime_id):
            self._wrong("the header names no lifetime")
        if not TENANT.fullmatch(header.tenant_id):
            self._wrong("the header names no tenant")
        self._export.header = header

    def _graph(self, line: GraphLine) -> None:
        if line.digest in self._export.graphs:
            self._wrong(f"the graph {line.digest} comes twice")
        try:
            graph = graph_from_json(line.graph)
            problems = validate(graph)
            if problems:
                self._wrong(f"the graph has problems: {problems[0]}")
            self._topologies[line.digest] = Topology(graph)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._wrong(f"this is no graph: {error}")
        if (line.name, line.version, line.digest) != (graph.name, graph.version, graph.digest):
            self._wrong(f"the graph is {graph.label} with the digest {graph.digest}, not what the line says")
        self._export.graphs[line.digest] = (graph, bytes(line.graph))

    def _policies(self, line: PoliciesLine) -> None:
        if line.digest in self._export.policies:
            self._wrong(f"the policies {line.digest} come twice")
        try:
            policies = decode_set(bytes(line.policies))
            self._rules[line.digest] = Rules(policies)
        except (msgspec.MsgspecError, TickworkError, ValueError, RecursionError) as error:
            self._wrong(f"these are no policies: {error}")
        if policies.digest != line.digest:
            self._wrong(f"the policies have the digest {policies.digest}, not what the line says")
        self._export.policies[line.digest] = bytes(line.policies)

    def _blob(self, line: BlobLine, following: Iterator[AnyLine]) -> None:
        if line.uri in self._export.blobs:
            self._wrong(f"the blob {line.uri} comes twice")
        if line.uri != f"blob://{self._export.header.tenant_id}/{line.sha256}":
            self._wrong(f"the blob's address is not its digest among those of tenant {self._export.header.tenant_id}")
        digest, left, start = hashlib.sha256(), line.size, self._export.keep(b"")
        while left > 0:
            piece = next(following)
            if not isinstance(piece, DataLine) or len(piece.content) != min(left, PIECE):
                self._wrong(f"{left:,} bytes of the blob are missing")
            digest.update(piece.content)
            self._export.keep(piece.content)
            left -= len(piece.content)
        if left or digest.hexdigest() != line.sha256:
            self._wrong("the blob's bytes have another digest than its line says")
        self._export.blobs[line.uri] = CarriedBlob(start, line.size, line.sha256)

    def _lifetime(self, line: LifetimeLine, following: Iterator[AnyLine]) -> None:
        if len(self._ids) >= MAX_LIFETIMES:
            self._wrong(f"the file has more than {MAX_LIFETIMES:,} lifetimes")
        if line.lifetime_id in self._ids:
            self._wrong(f"the lifetime {line.lifetime_id} comes twice")
        self._ids.add(line.lifetime_id)
        topology = self._topologies.get(line.graph)
        if topology is None:
            self._wrong(f"the file has no graph {line.graph}")
        export = self._export
        proving = Proving(line, topology, self._rules, export, export.header.tenant_id)
        proving.row()
        start = export.keep(b"")
        for _ in range(line.records):
            entry = next(following)
            if not isinstance(entry, EntryLine):
                self._wrong(f"the log of {line.lifetime_id} ends after {proving.seq} of {line.records:,} entries")
            export.keep_entry(proving.feed(entry))
        export.lifetimes.append(_carried(proving, start))


def _carried(proving: Proving, start: int) -> Carried:
    lifetime, projection = proving.ended()
    return Carried(
        lifetime=lifetime, start=start, records=proving.seq, paused=proving.paused, projection=projection,
        divergence=proving.divergence,
    )  # fmt: skip


def _kind(line: AnyLine) -> str:
    return str(type(line).__struct_config__.tag)
