"""A lifetime as a file: every recorded shape goes through it unchanged, and a file that was touched is refused."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.histories.form import FOLDER, History
from tests.histories.form import read as read_history
from tickwork.adapters.blob.fs import FileBlobs
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import SystemClock
from tickwork.errors import Conflict, GraphConflict, NotFound, StoreCorrupt, TickworkError, UsageError
from tickwork.model.graph import graph_from_json
from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Append
from tickwork.model.policy import encode_set
from tickwork.model.records import Event, Execution, LogEntry, Payload, encode_entry
from tickwork.model.spending import UsageQuery
from tickwork.orchestrator.replay import replay
from tickwork.orchestrator.starting import PARENT_LABEL
from tickwork.ports import LifetimeQuery, StoredGraph
from tickwork.transfer import reading
from tickwork.transfer.exporting import Exported, Exporting
from tickwork.transfer.importing import Imported, Importing
from tickwork.transfer.lines import ExportInvalid, entry_line, read_entry

FILES = sorted(FOLDER.glob("*.jsonl"))


class Place:
    """A store with its blobs, as an installation has them."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.store = SqliteStore(":memory:", self.clock)
        self.blobs = FileBlobs(folder)

    async def put(self, history: History, **changes: Any) -> Lifetime:
        """Has a recorded lifetime in the store, as if it had run here."""
        life = msgspec.structs.replace(history.lifetime, tenant_id="default", **changes)
        body = msgspec.json.encode(history.graph)
        await self.store.put_graph(
            StoredGraph("default", life.graph_name, life.graph_version, life.graph_digest, body, "here.py", 1)
        )
        for digest, policies in history.policies.items():
            await self.store.put_policy_set(digest, encode_set(policies))
        entries = tuple(logged.entry for logged in history.log)
        append = Append("default", life.lifetime_id, entries, ats=tuple(logged.at for logged in history.log))
        made, created = await self.store.create_lifetime(life, append)
        assert created
        return made

    async def export(self, lifetime_id: str) -> bytes:
        sink = io.BytesIO()
        await self.exported(lifetime_id, sink)
        return sink.getvalue()

    async def exported(self, lifetime_id: str, sink: io.BytesIO) -> Exported:
        return await Exporting(self.store, self.blobs, sink).export(lifetime_id)

    async def take(self, content: bytes, **options: Any) -> Imported:
        with read(content) as export:
            return await Importing(self.store, self.blobs, self.clock).take(export, **options)

    async def get(self, lifetime_id: str) -> Lifetime:
        return (await self.store.get_lifetime("default", lifetime_id))[0]

    async def log(self, lifetime_id: str) -> list[LogEntry]:
        return await self.store.read_log("default", lifetime_id, 0, 100_000)


@asynccontextmanager
async def places(folder: Path) -> AsyncIterator[tuple[Place, Place]]:
    """Two installations."""
    found = Place(folder / "here"), Place(folder / "there")
    for place in found:
        await place.store.start()
        await place.blobs.start()
    try:
        yield found
    finally:
        for place in found:
            await place.store.stop()


def read(content: bytes, **options: Any) -> reading.Export:
    return reading.read(io.BufferedReader(io.BytesIO(content)), **options)


def recorded(name: str) -> History:
    return read_history((FOLDER / f"{name}.jsonl").read_bytes())


def same(one: list[LogEntry], other: list[LogEntry]) -> bool:
    return [(e.seq, e.at, encode_entry(e.entry)) for e in one] == [(e.seq, e.at, encode_entry(e.entry)) for e in other]


# -- what goes through ------------------------------------------------------------------------------------------------


async def test_every_recorded_shape_arrives_as_it_was(tmp_path: Path) -> None:
    for path in FILES:
        history = read_history(path.read_bytes())
        async with places(tmp_path / path.stem) as (here, there):
            made = await here.put(history)
            content = await here.export(made.lifetime_id)
            done = await there.take(content, by="ann")
            log, arrived = await there.log(made.lifetime_id), await there.get(made.lifetime_id)
            assert same(log[: made.last_seq], await here.log(made.lifetime_id)), path.stem
            assert (done.created, done.diverges) == ([made.lifetime_id], None), path.stem
            graph = (await there.store.graphs("default", digest=made.graph_digest))[0]
            assert (graph.body, graph.source) == (msgspec.json.encode(history.graph), ""), path.stem
            assert (arrived.labels, arrived.created_at) == (made.labels, made.created_at)
            if made.ended:
                assert (arrived.status, arrived.reason, len(log)) == (made.status, made.reason, made.last_seq)
            else:
                assert arrived.status == "PAUSED", path.stem
                replayed = replay(history.graph, log, rules_of=history.rules)
                assert replayed.divergence is None, path.stem
            (used,) = await there.store.usage(UsageQuery(tenant_id=None))
            assert (used.executions, used.tokens_used) == (0, 0), "whoever ran it has counted it"


async def test_the_same_lifetime_is_the_same_file(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, there):
        made = await here.put(recorded("branches_share_a_budget"))
        first = await here.export(made.lifetime_id)
        assert first == await here.export(made.lifetime_id[:20])
        await there.take(first)
        assert first == await there.export(made.lifetime_id), "also from where it was imported"


async def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, there):
        for name in ("one_task", "human_still_waits"):
            made = await here.put(recorded(name))
            content = await here.export(made.lifetime_id)
            await there.take(content)
            before = await there.log(made.lifetime_id)
            again = await there.take(content)
            assert (again.created, again.found, again.records) == ([], [made.lifetime_id], 0)
            assert same(before, await there.log(made.lifetime_id))
            at_home = await here.take(content)
            assert (at_home.created, at_home.status) == ([], made.status), "where it comes from it is there, too"


async def test_one_that_had_not_ended_stands_still(tmp_path: Path) -> None:
    """It is paused by its log, so that whoever folds it sends nothing out; its question is there, and its timer."""
    async with places(tmp_path) as (here, there):
        made = await here.put(recorded("human_still_waits"))
        await there.take(await here.export(made.lifetime_id), by="ann")
        last = (await there.log(made.lifetime_id))[-1]
        assert isinstance(last.entry, Event)
        assert (last.seq, last.entry.type, last.entry.data["by"]) == (made.last_seq + 1, "paused", "ann")
        assert last.entry.data["reason"] == (await there.get(made.lifetime_id)).reason
        (asked,) = await there.store.questions("default", made.lifetime_id)
        assert (asked.node, asked.on) == ("ask", "human")
        # From there it goes to a third place, and back where it came from nothing of that is taken for its own.
        onwards = await there.export(made.lifetime_id)
        with pytest.raises(Conflict, match=f"entry {last.seq} of the file is not there yet"):
            await here.take(onwards)


async def test_one_that_is_paused_already_is_not_paused_again(tmp_path: Path) -> None:
    for name in ("policy_pauses_at_a_dispatch", "paused_and_resumed"):
        history = recorded(name)
        stop = next(e.seq for e in history.log if isinstance(e.entry, Event) and e.entry.type == "paused")
        history.log = history.log[:stop]
        async with places(tmp_path / name) as (here, there):
            made = await here.put(history, status="PAUSED", finished_at=None, reason="lunch")
            await there.take(await here.export(made.lifetime_id))
            arrived = await there.get(made.lifetime_id)
            assert (arrived.status, arrived.reason, arrived.last_seq) == ("PAUSED", "lunch", stop)


async def test_a_fork_has_no_questions_of_the_other_lifetime(tmp_path: Path) -> None:
    family = [recorded(f"fork_of_a_fork_that_waits.{n}") for n in (2, 3)]
    found = {h.lifetime.lifetime_id: h for h in family}
    history, forked = next(
        (found[e.entry.data["into"]], e.seq)
        for e in family[0].log
        if isinstance(e.entry, Event) and e.entry.type == "forked"
    )
    assert any(isinstance(e.entry, Event) and e.entry.type == "waiting" for e in history.log[:forked])
    history.log = history.log[:forked]
    async with places(tmp_path) as (here, there):
        made = await here.put(history, status="RUNNING", finished_at=None, reason=None)
        await there.take(await here.export(made.lifetime_id))
        assert (await there.get(made.lifetime_id)).status in ("PAUSED", "RUNNING")
        assert await there.store.questions("default", made.lifetime_id) == []
        assert await there.store.due_timers() == ([], None)


async def test_a_lifetime_that_only_has_to_record_its_end_is_not_paused(tmp_path: Path) -> None:
    history = recorded("one_task")
    history.log = history.log[:-1]
    async with places(tmp_path) as (here, there):
        made = await here.put(history, status="RUNNING", finished_at=None, reason=None)
        await there.take(await here.export(made.lifetime_id))
        arrived = await there.get(made.lifetime_id)
        assert (arrived.status, arrived.last_seq) == ("RUNNING", made.last_seq)


def family() -> tuple[History, History]:
    above, below = recorded("child"), recorded("child.2")
    assert below.lifetime.labels[PARENT_LABEL] == above.lifetime.lifetime_id
    return above, below


async def test_children_go_along(tmp_path: Path) -> None:
    above, below = family()
    async with places(tmp_path) as (here, there):
        parent, child = await here.put(above), await here.put(below)
        content = await here.export(parent.lifetime_id)
        done = await there.take(content)
        assert done.created == [child.lifetime_id, parent.lifetime_id]
        assert same(await there.log(child.lifetime_id), below.log)
        assert (await there.take(content)).found == [child.lifetime_id, parent.lifetime_id]
        alone = await here.export(child.lifetime_id)
        assert (await there.take(alone)).found == [child.lifetime_id]


async def test_a_crash_in_the_middle_is_mended_by_the_same_file(tmp_path: Path) -> None:
    above, below = family()
    async with places(tmp_path) as (here, there):
        parent, child = await here.put(above), await here.put(below)
        content = await here.export(parent.lifetime_id)
        create = there.store.create_lifetime
        crashes = [child.lifetime_id, parent.lifetime_id]

        async def crashing(lifetime: Lifetime, started: Append) -> tuple[Lifetime, bool]:
            if lifetime.lifetime_id in crashes:
                crashes.remove(lifetime.lifetime_id)
                raise asyncio.CancelledError
            return await create(lifetime, started)

        there.store.create_lifetime = crashing  # type: ignore[method-assign]  # dies before that transaction
        seen: list[list[str]] = []
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError):
                await there.take(content)
            known = [
                one.lifetime_id for one in (parent, child) if await there.store.get_lifetime("default", one.lifetime_id)
            ]
            seen.append(known)
        done = await there.take(content)
        assert seen == [[], [child.lifetime_id]], "each lifetime is there whole, or not at all"
        assert (done.created, done.found) == ([parent.lifetime_id], [child.lifetime_id])


async def test_blobs_go_along(tmp_path: Path) -> None:
    data = json.dumps("x" * 3_000_000).encode()
    async with places(tmp_path) as (here, there):
        made = await with_blob(here, data)
        content = await here.export(made.lifetime_id)
        done = await there.take(content)
        assert done.blobs == 1
        assert await there.blobs.get("default", blob_uri(data)) == data
        packed = gzip.compress(content)
        assert len(packed) < len(content) / 100
        assert (await there.take(packed)).found == [made.lifetime_id]
        next((tmp_path / "here").rglob(blob_uri(data)[-64:])).unlink()
        with pytest.raises(NotFound, match="no blob"):
            await here.export(made.lifetime_id)


def blob_uri(data: bytes, tenant: str = "default") -> str:
    return f"blob://{tenant}/{hashlib.sha256(data).hexdigest()}"


async def with_blob(here: Place, data: bytes) -> Lifetime:
    history = recorded("one_task")
    uri, digest = await here.blobs.put("default", data)
    done = history.log[1].entry
    assert isinstance(done, Execution)
    done.result = Payload(None, uri=uri, size=len(data), sha256=digest)
    return await here.put(history)


async def test_what_a_record_cannot_say_travels_as_it_is_stored(tmp_path: Path) -> None:
    history = recorded("one_task")
    done = history.log[1].entry
    assert isinstance(done, Execution)
    done.result = Payload(b'{"a" : [1,   2]}', size=16)  # as nobody here writes it: with blanks
    line = entry_line(history.log[1], history.lifetime)
    assert isinstance(line.stored, bytes)
    assert encode_entry(read_entry(line).entry) == encode_entry(done)
    async with places(tmp_path) as (here, there):
        made = await here.put(history)
        await there.take(await here.export(made.lifetime_id))
        assert same(await there.log(made.lifetime_id), history.log)


async def test_a_log_that_does_not_replay_arrives_and_says_so(tmp_path: Path) -> None:
    history = recorded("loop")
    done = history.log[3].entry
    assert isinstance(done, Execution)
    done.edge_taken = "somewhere->else"
    async with places(tmp_path) as (here, there):
        made = await here.put(history)
        imported = await there.take(await here.export(made.lifetime_id))
        assert imported.diverges is not None
        assert imported.diverges.startswith("at entry 4 ")
        assert same(await there.log(made.lifetime_id), history.log)
        running = recorded("loop")
        running.log = history.log[:6]
        other = await here.put(running, lifetime_id=made.lifetime_id[:-1] + "0", status="RUNNING", finished_at=None)
        # Whose log it is cannot be told of one that is not understood; paused it is in any case.
        await there.take(await here.export(other.lifetime_id))
        assert (await there.get(other.lifetime_id)).status == "PAUSED"


# -- what is refused --------------------------------------------------------------------------------------------------


async def test_another_tenant_is_asked_for_by_name(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, there):
        made = await here.put(recorded("one_task"))
        content = await here.export(made.lifetime_id)
        with pytest.raises(UsageError, match="--tenant default"):
            await there.take(content, tenant="acme")


async def test_what_is_here_with_another_content_stays(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, there):
        made = await here.put(recorded("loop"))
        content = await here.export(made.lifetime_id)
        other = recorded("loop")
        for logged in other.log[2:]:
            logged.at += 1
        await there.put(other)
        with pytest.raises(Conflict, match="entry 3 of the file differs"):
            await there.take(content)
        assert same(await there.log(made.lifetime_id), other.log)
    async with places(tmp_path / "graph") as (here, there):
        made = await here.put(recorded("loop"))
        graph = msgspec.structs.replace(recorded("one_task").graph, name="loop")
        body = msgspec.json.encode(graph)
        await there.store.put_graph(StoredGraph("default", "loop", graph.version, graph.digest, body, "", 1))
        with pytest.raises(GraphConflict, match="another content"):
            await there.take(await here.export(made.lifetime_id))
        assert await there.store.get_lifetime("default", made.lifetime_id) == []


async def test_the_place_of_a_registered_graphs_code_stays(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, there):
        made, history = await here.put(recorded("loop")), recorded("loop")
        body = msgspec.json.encode(history.graph)
        await there.store.put_graph(
            StoredGraph("default", "loop", made.graph_version, made.graph_digest, body, "mine.py", 1)
        )
        done = await there.take(await here.export(made.lifetime_id))
        assert done.registered == []
        assert (await there.store.graphs("default", name="loop"))[0].source == "mine.py"


async def test_a_store_that_misses_something_is_not_exported(tmp_path: Path) -> None:
    async with places(tmp_path) as (here, _):
        history = recorded("branches_share_a_budget")
        history.policies = {}
        made = await here.put(history)
        with pytest.raises(StoreCorrupt, match="policy set"):
            await here.export(made.lifetime_id)
        with pytest.raises(NotFound, match="no lifetime"):
            await here.export("ffff")


Lines = list[dict[str, Any]]


def sealed(found: Lines) -> bytes:
    """The lines with a checksum that fits them: what somebody makes who knows the form."""
    content = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in found[:-1])
    end = {"line": "end", "lines": len(found) - 1, "sha256": hashlib.sha256(content).hexdigest()}
    return content + json.dumps(end).encode() + b"\n"


def at(kind: str, found: Lines, nth: int = 0) -> int:
    return [n for n, line in enumerate(found) if line["line"] == kind][nth]


def execution(found: Lines) -> dict[str, Any]:
    records = [line["record"] for line in found if line["line"] == "entry" and "headers" in line["record"]]
    found_first: dict[str, Any] = records[0]
    return found_first


def swap(found: Lines, one: int, other: int) -> None:
    found[one], found[other] = found[other], found[one]


def rename(found: Lines) -> None:
    for line in found:
        if line["line"] in ("header", "lifetime"):
            line["lifetime_id"] = "01a20236-6905-7962-b3f5-634ccafff0ea"
        if line["line"] == "entry":
            record = line["record"]
            record.get("headers", record)["lifetime_id"] = found[0]["lifetime_id"]
            record.get("headers", {}).pop("trace", None)


def stored(found: Lines, entry: Any) -> None:
    line = found[at("entry", found, 1)]
    line.pop("record")
    line["stored"] = base64.b64encode(msgspec.msgpack.encode(entry)).decode()


def twice_the_same(found: Lines) -> None:
    for _ in range(2):
        add_blob(found, b"x" * 9)


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE: dict[str, tuple[Callable[[Lines], object], str]] = {
    "a newer version": (lambda f: f[0].update(version=2), "line 1: .*version 2.*reads version 1"),
    "another format": (lambda f: f[0].update(format="zip"), "line 1: this is no exported lifetime"),
    "a tenant that is a path": (lambda f: f[0].update(tenant_id="../x"), "names no tenant"),
    "a lifetime that is a path": (lambda f: f[0].update(lifetime_id="../x"), "names no lifetime"),
    "a row of another tenant": (lambda f: f[at("lifetime", f)].update(tenant_id="acme"), "of tenant acme"),
    "a record of another tenant": (lambda f: execution(f)["headers"].update(tenant_id="acme"), "another tenant"),
    "a record of another lifetime": (lambda f: execution(f)["headers"].update(lifetime_id="x"), "another tenant, life"),
    "a digest that is not its value's": (lambda f: execution(f)["result"].update(sha256="0" * 64), "digest"),
    "a log of somebody else": (rename, "this is the log of lifetime"),
    "entries in another order": (lambda f: swap(f, at("entry", f, 1), at("entry", f, 2)), "follows entry 1"),
    "an entry twice": (lambda f: f.insert(at("entry", f, 1), f[at("entry", f, 1)]), "entry 2 follows entry 2"),
    "an entry less": (lambda f: f.pop(at("entry", f, 1)), "entry 3 follows entry 1"),
    "a log that is cut": (lambda f: f[at("lifetime", f)].update(records=2), "the row says COMPLETED|not belong here"),
    "an end too much": (lambda f: f[at("lifetime", f)].update(status="ABORTED"), "the row says ABORTED"),
    "no entries": (lambda f: f[at("lifetime", f)].update(records=0), "at least one entry"),
    "a time that goes back": (
        lambda f: f[at("entry", f, 1)]["record"].update(recorded_at="1980-01-01T00:00:00Z"),
        "before the one before|not what its record says",
    ),
    "a graph twice": (lambda f: f.insert(1, f[1]), "comes twice"),
    "no graph": (lambda f: f.pop(1), "has no graph"),
    "another graph": (lambda f: f[1]["graph"].update(version="9.9.9"), "not what the line says"),
    "a graph with problems": (lambda f: f[1]["graph"].update(edges=[]), "the graph has problems"),
    "a graph that nobody runs": (
        lambda f: f.insert(1, graph_line(recorded("loop"))),
        "no lifetime runs the graph",
    ),
    "the lifetime twice": (lambda f: f.extend([*f[at("lifetime", f) : -1], f.pop()]), "comes twice"),
    "a line that is none": (lambda f: f.insert(2, {"line": "shell", "run": "rm"}), "none of an export"),
    "graphs after logs": (lambda f: f.insert(len(f) - 1, f.pop(1)), "has no graph"),
    "no lifetime": (lambda f: f.__delitem__(slice(1, -1)), "its last lifetime is not"),
    "an entry without content": (lambda f: f[at("entry", f, 1)].pop("record"), "cannot be understood"),
    "a record without a type": (lambda f: f[at("entry", f, 1)].update(record={}), "cannot be understood"),
    "stored bytes that are none": (lambda f: stored(f, [2, 1, ["x"]]), "cannot be understood"),
    "stored facts of other types": (
        lambda f: stored(f, [2, 2**60, ["e", "t:set", "timer_set", {"timer_id": 5, "due": "x", "exec_id": None}]]),
        "cannot be understood",
    ),
    "an entry of the year 9999999": (lambda f: stored(f, [2, 2**61, ["e", "p", "paused", {}]]), "cannot be understood"),
    "a second start": (
        lambda f: stored(f, [2, 2**51, ["e", "s2", "started", {"graph": {}, "input": None}]]),
        "has one",
    ),
    "a blob that is not there": (
        lambda f: execution(f).update(result=pointer(b"x" * 9)),
        "has no blob",
    ),
    "a blob of another tenant": (lambda f: add_blob(f, b"x" * 9, tenant="acme"), "among those of tenant default"),
    "a blob with another digest": (lambda f: add_blob(f, b"x" * 9, sent=b"y" * 9), "another digest"),
    "a blob with less bytes": (lambda f: add_blob(f, b"x" * 9, sent=b"x" * 8), "9 bytes of the blob are missing"),
    "a blob twice": (twice_the_same, "comes twice"),
    "a blob of a size below nothing": (lambda f: add_blob(f, b"x" * 9, size=-5), "another digest"),
    "policies that are not there": (
        lambda f: f[at("entry", f)]["record"]["data"].update(policies="sha256:" + "0" * 64),
        "has no policies|keys",
    ),
    "policies with another digest": (
        lambda f: f.insert(2, {"line": "policies", "digest": "sha256:0", "policies": {"policies": []}}),
        "the policies have the digest",
    ),
    "a label with NUL": (lambda f: f[at("lifetime", f)].update(labels={"a": "\x00"}), "NUL"),
    "a reason without end": (lambda f: f[at("lifetime", f)].update(reason="x" * 100_000), "longer than"),
}


def graph_line(history: History) -> dict[str, Any]:
    body = json.loads(msgspec.json.encode(history.graph))
    graph = graph_from_json(msgspec.json.encode(history.graph))
    return {"line": "graph", "name": graph.name, "version": graph.version, "digest": graph.digest, "graph": body}


def pointer(data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {
        "uri": blob_uri(data), "content_type": "application/json", "size_bytes": len(data), "sha256": digest,
    }  # fmt: skip


def add_blob(
    found: Lines, data: bytes, *, tenant: str = "default", sent: bytes | None = None, size: int | None = None
) -> None:
    digest = hashlib.sha256(data).hexdigest()
    blob = {
        "line": "blob",
        "uri": blob_uri(data, tenant),
        "sha256": digest,
        "size": len(data) if size is None else size,
    }
    content = base64.b64encode(data if sent is None else sent).decode()
    found[at("lifetime", found) : at("lifetime", found)] = [blob, {"line": "data", "content": content}]


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_file_that_was_made_up_is_refused(name: str, tmp_path: Path) -> None:
    change, said = HOSTILE[name]
    async with places(tmp_path) as (here, there):
        made = await here.put(recorded("one_task"))
        content = await here.export(made.lifetime_id)
        found = [json.loads(line) for line in content.splitlines()]
        change(found)
        with pytest.raises(ExportInvalid, match=said) as caught:
            await there.take(sealed(found))
        assert str(caught.value).startswith("line ")
        assert await there.store.list_lifetimes("default", LifetimeQuery()) == []
        assert await there.store.graphs("default") == []


async def exported_bytes(folder: Path) -> bytes:
    async with places(folder) as (here, _):
        return await here.export((await here.put(recorded("loop"))).lifetime_id)


async def test_a_file_that_was_damaged_is_refused(tmp_path: Path) -> None:
    content = await exported_bytes(tmp_path)
    rows = content.splitlines(keepends=True)
    for size in [0, 1, 10, len(rows[0]), len(content) // 2, len(content) - len(rows[-1]), len(content) - 1]:
        with pytest.raises(ExportInvalid):
            read(content[:size])
    for spot in range(5, len(content) - 1, 97):
        changed = bytearray(content)
        changed[spot] ^= 1
        with pytest.raises(ExportInvalid):
            read(bytes(changed))
    for damaged in (
        b"".join([rows[0], *rows[2:]]),
        b"".join([*rows[:3], rows[2], *rows[3:]]),
        b"".join([*rows[:-3], rows[-2], rows[-3], rows[-1]]),
        content + b"\n",
        content + content,
    ):
        with pytest.raises(ExportInvalid):
            read(damaged)
    read(content).__exit__(None, None, None)


async def test_a_packed_file_that_was_damaged_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(await exported_bytes(tmp_path))
    for damaged in (packed[:-1], packed[:40], packed[:2], packed[:200] + b"\x00" * 40 + packed[240:], packed + packed):
        with pytest.raises(ExportInvalid):
            read(damaged)


def test_bombs_are_refused_before_they_are_large() -> None:
    bomb = gzip.compress(b'{"format":"tickwork.lifetime"' + b" " * 300_000_000, compresslevel=1)
    with pytest.raises(ExportInvalid, match="line 1: the line has more than 134,217,728 bytes"):
        read(bomb)
    many = gzip.compress(b'{"line":"data","content":""}\n' * 200_000)
    with pytest.raises(ExportInvalid, match="line 1: this is no exported lifetime"):
        read(many)
    with pytest.raises(ExportInvalid, match="none of an export"):
        read(f'{{"line":"header","x":{DEEP}}}\n'.encode())


async def test_a_file_larger_than_it_may_be_is_refused(tmp_path: Path) -> None:
    content = await exported_bytes(tmp_path)
    with pytest.raises(ExportInvalid, match=r"more than 3,000 bytes; --max-bytes"):
        read(content, limit=3_000)
    read(content, limit=len(content)).__exit__(None, None, None)


async def test_entries_nested_without_end_are_refused(tmp_path: Path) -> None:
    content = await exported_bytes(tmp_path)
    rows = content.splitlines(keepends=True)
    for place in (1, 4):
        hostile = [*rows]
        hostile[place] = rows[place].rstrip()[:-1] + b',"x":' + DEEP.encode() + b"}\n"
        with pytest.raises(ExportInvalid):
            read(b"".join(hostile))


def test_findings_have_the_exit_code_of_findings() -> None:
    with pytest.raises(TickworkError) as caught:
        read(b"hello\n")
    assert (caught.value.exit_code, caught.value.code) == (4, "export_invalid")
