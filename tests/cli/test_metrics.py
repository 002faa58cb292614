"""What Prometheus is told: names, labels and bounds, by the command and over HTTP."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.adapters.servers import free_port
from tests.cli.cloud import cloud
from tests.cli.process import Cli
from tickwork import Context, Graph, task
from tickwork.adapters.meters import SECONDS, Meters
from tickwork.errors import StorageError, UsageError
from tickwork.metrics import MAX_MODELS, MAX_SERIES, Bounded, Family, Used, exposition, families_of
from tickwork.model.lifetime import TimerRow
from tickwork.model.policy import Policy, PolicyDocument
from tickwork.model.spending import UsageQuery, UsageRow
from tickwork.probes import address
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

__all__ = ["cloud"]


@task
def work(_: Any, ctx: Context) -> int:
    ctx.telemetry.record(tokens_in=30, tokens_out=12, tokens_used=42, cost_usd="0.25", model="m", pages=3)
    return 1


def read(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The values by metric and labels; what is written against the conventions fails."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"tickwork_[a-z][a-z0-9_]*", family.name), family.name
        assert family.documentation, f"{family.name} has no help"
        assert "lifetime" not in {label for sample in family.samples for label in sample.labels}
        for sample in family.samples:
            counter = family.type == "counter"
            assert sample.name.endswith("_total") == counter, sample.name
            series = found.setdefault(sample.name, {})
            key = tuple(sorted(sample.labels.items()))
            assert key not in series, f"{sample.name}{key} is told twice"
            series[key] = sample.value
    return found


async def ran(runtime: Runtime, tenant: str = "default", **start: Any) -> str:
    stored = await runtime.bind(Graph("g").start(work).final(work).bind(), tenant=tenant)
    one = await runtime.service.start(stored.digest, None, tenant=tenant, **start)
    await runtime.guard(runtime.service.wait(one.lifetime_id, tenant=tenant, until="settled"))
    return one.lifetime_id


async def test_everything_is_told_by_the_conventions() -> None:
    async with Runtime(Profile.test()) as runtime:
        day = Policy(name="day", scope="tenant", when="sum(cost_usd) > 2", action="pause_lifetime")
        loud = Policy(name="loud", when="sum(tokens_used) > 40", action="warn")
        await runtime.accounts.apply_policies(PolicyDocument(policies=(day, loud)))
        await ran(runtime)
        await ran(runtime, "umbrella")
        first = read(exposition(await runtime.measurements.measurements()).decode())
        await ran(runtime)
        told = read(exposition(await runtime.measurements.measurements()).decode())
    mine = (("graph", "g"), ("model", "m"), ("tenant", "default"))
    assert (first["tickwork_tokens_used_total"][mine], told["tickwork_tokens_used_total"][mine]) == (42, 84)
    assert told["tickwork_cost_usd_total"][mine] == 0.5
    assert told["tickwork_custom_total"][("counter", "pages"), ("graph", "g"), ("tenant", "default")] == 6
    assert 0 < told["tickwork_execution_seconds_total"][mine] < 60
    budget = (("aggregate", "sum(cost_usd)"), ("graph", ""), ("policy", "installation/day"), ("tenant", "umbrella"))
    assert [told[f"tickwork_budget_{name}"][budget] for name in ("spent", "reserved", "limit")] == [0.25, 0, 2]
    verdict = (("action", "warn"), ("policy", "installation/loud"), ("shadow", "false"), ("tenant", "default"))
    assert told["tickwork_verdicts_total"][verdict] == 2
    assert told["tickwork_data_plane_recorded_total"][()] > 6
    assert told["tickwork_control_plane_moving_limit"][()] > 0
    assert set(first) <= set(told)


class Rows:
    """Accounts of very many graphs and models."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.asked: list[tuple[int, int | None]] = []

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        self.asked.append((query.since, query.until))
        if query.until is None:
            return []
        return [UsageRow(key=("t", f"g{n}", f"m{n}"), executions=1, tokens_used=2) for n in range(self.rows)]


class Fixed:
    def __init__(self) -> None:
        self.minute = 1_000

    def now(self) -> int:
        return self.minute * 60_000_000


async def test_labels_are_bounded_and_minutes_that_are_over_are_read_once() -> None:
    rows, clock = Rows(3 * MAX_SERIES), Fixed()
    used = Used(rows, clock)  # type: ignore[arg-type]  # it asks for usage and the time, and nothing else
    families = await used.families()
    tokens = next(family for family in families if family.name == "tickwork_tokens_used")
    assert len(tokens.series) == MAX_SERIES
    assert sum(value for _, value in tokens.series) == 2 * rows.rows, "what has no series is not lost"
    assert len({key[2] for key, _ in tokens.series}) <= MAX_MODELS + 1
    rows.rows, clock.minute = 10, 1_005
    again = next(family for family in await used.families() if family.name == "tickwork_tokens_used")
    assert {key for key, _ in again.series} == {key for key, _ in tokens.series}, "no series comes or goes"
    assert sum(value for _, value in again.series) == 2 * 3 * MAX_SERIES + 20
    assert rows.asked == [
        (0, 998 * 60_000_000),
        (998 * 60_000_000, None),
        (998 * 60_000_000, 1_003 * 60_000_000),
        (1_003 * 60_000_000, None),
    ]


def test_a_bound_counts_together_what_comes_late() -> None:
    bounded = Bounded(3)
    for name in ("a", "b", "c", "d", "a"):
        bounded.add((name, "x"), [1])
    assert bounded.sums == {("a", "x"): [2], ("b", "x"): [1], ("other", "other"): [2]}


def test_names_cannot_break_out_of_their_quotes() -> None:
    evil = 'a"} 1\ntickwork_fake_total{x="\\'
    family = Family("tickwork_x", "counter", "a\nb", ("tenant",), [((evil,), 1)])
    (read_back,) = text_string_to_metric_families(exposition([family]).decode())
    assert [sample.labels for sample in read_back.samples] == [{"tenant": evil}]


class Answering:
    """A server that is there, and an adapter that counts."""

    def __init__(self) -> None:
        self.meters = Meters(("conflict",))
        self.busy = 3.0
        self.meters.gauge("connections", "Connections", ("use",), lambda: {("busy",): self.busy})
        self.took = self.meters.histogram("commit_seconds", "Time of a commit", SECONDS)

    async def ping(self) -> dict[str, str]:
        return {}


class Gone:
    """One that is not, and says so, or never answers."""

    def __init__(self, *, says: bool) -> None:
        self.says = says

    async def ping(self) -> None:
        if self.says:
            raise StorageError("nobody is there")
        await asyncio.Event().wait()


async def test_of_every_server_it_is_told_whether_it_is_up_and_what_its_adapter_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tickwork.metrics.ANSWER", 0.01)
    adapter = Answering()
    adapter.meters.retried("conflict")
    adapter.meters.retried("something new")
    for seconds in (0.0004, 0.001, 0.3, 400.0):
        adapter.took.observe(seconds)
    async with Runtime(Profile.test()) as runtime:
        runtime.measurements.servers = {
            "state": Answering(), "bus": Gone(says=True), "kv": Gone(says=False), "blob": adapter, "memory": object(),
        }  # fmt: skip
        families = await runtime.measurements.measurements()
        told = read(exposition(families).decode())
    up = {dict(key)["server"]: value for key, value in told["tickwork_up"].items()}
    assert up == {"state": 1, "bus": 0, "kv": 0, "blob": 1}
    retries = {key: value for key, value in told["tickwork_retries_total"].items() if ("server", "blob") in key}
    assert retries == {(("reason", reason), ("server", "blob")): 1 for reason in ("conflict", "other")}
    assert told["tickwork_blob_connections"][("use", "busy"),] == 3
    buckets = told["tickwork_blob_commit_seconds_bucket"]
    assert [buckets[("le", le),] for le in ("0.001", "0.25", "0.5", "30.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert told["tickwork_blob_commit_seconds_count"][()] == 4
    assert told["tickwork_blob_commit_seconds_sum"][()] == pytest.approx(400.3014)
    assert exposition(families_of(msgspec.to_builtins(families))) == exposition(families), "another process may tell it"


async def test_a_store_that_is_away_hides_nothing_but_itself() -> None:
    async with Runtime(Profile.test()) as runtime:
        runtime.measurements.servers = {"state": Gone(says=True)}
        told = read(exposition(await runtime.measurements.measurements()).decode())
    assert told["tickwork_up"][("server", "state"),] == 0
    assert told["tickwork_data_plane_recorded_total"][()] == 0
    assert "tickwork_timers_late_seconds" not in told


class Late:
    """A store with a timer that should have fired nine seconds ago."""

    def __init__(self, now: int) -> None:
        self.due = now - 9_000_000

    async def ping(self) -> None:
        pass

    async def due_timers(self, ahead: int = 0, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        return [TimerRow("t", "l", "timer", self.due)][: limit - ahead], None


async def test_how_late_the_earliest_timer_is() -> None:
    async with Runtime(Profile.test()) as runtime:
        runtime.measurements.servers = {"state": Late(runtime.clock.now())}
        told = read(exposition(await runtime.measurements.measurements()).decode())
        runtime.measurements.servers = {"state": runtime.store}
        calm = read(exposition(await runtime.measurements.measurements()).decode())
    assert 9 <= told["tickwork_timers_late_seconds"][()] < 60
    assert calm["tickwork_timers_late_seconds"][()] == 0


@pytest.mark.servers
async def test_the_real_adapters_are_up_and_tell_their_numbers(cloud: dict[str, str]) -> None:
    profile = Profile.cloud({name: value for name, value in cloud.items() if name.endswith("_URL")})
    async with Runtime(profile) as runtime:
        blobs, kv = profile.open_blobs(runtime.clock), profile.open_kv(runtime.clock)
        await blobs.put("default", b"payload")
        await kv.put("key", b"value", 1.0)
        await ran(runtime)
        runtime.measurements.servers = {"state": runtime.store, "blob": blobs, "kv": kv}
        told = read(exposition(await runtime.measurements.measurements()).decode())
        await blobs.stop()
        await kv.stop()
    up = {dict(key)["server"]: value for key, value in told["tickwork_up"].items()}
    assert up == {"state": 1, "blob": 1, "kv": 1}
    assert told["tickwork_state_commit_seconds_count"][()] > 0
    assert told["tickwork_state_commit_entries_sum"][()] >= 3
    assert told["tickwork_state_append_seconds_count"][()] >= told["tickwork_state_commit_seconds_count"][()]
    assert told["tickwork_state_connections_limit"][("pool", "reads"),] == 8
    assert told["tickwork_kv_answer_seconds_count"][()] == 2
    assert told["tickwork_blob_put_seconds_count"][()] == 1
    assert {dict(key)["server"] for key in told["tickwork_retries_total"]} == {"state", "blob", "kv"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text, "--listen") == found


@pytest.mark.parametrize("text", ["localhost", "localhost:", "localhost:http", "x:99999", "1.5"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        address(text, "--listen")


async def fetch(port: int, request: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def test_every_runtime_serves_them_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("TICKWORK_METRICS", f":{port}")
    async with Runtime(Profile.test()) as runtime:
        await ran(runtime)
        head, body = await fetch(port, "GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK")
        assert "Content-Type: text/plain; version=0.0.4" in head
        assert read(body)["tickwork_executions_total"]
        assert (await fetch(port, "HEAD /metrics HTTP/1.1\r\n\r\n"))[1] == ""
        assert (await fetch(port, "GET / HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 404")
        assert (await fetch(port, "POST /metrics HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 405")
        assert await fetch(port, "GET /" + "x" * 100_000 + "\r\n\r\n") == ("", "")
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}.*address already in use"):
            await Runtime(Profile.test()).__aenter__()
    async with Runtime(Profile.test()):
        assert "tickwork_build_info" in (await fetch(port, "GET /metrics HTTP/1.1\r\n\r\n"))[1], "it is free again"


async def test_a_store_that_does_not_answer_is_a_reason_not_to_be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.runtime.ANSWER", 0.01)
    async with Runtime(Profile.test()) as runtime:
        ready = runtime.probes()["/readyz"]
        assert (await ready())[0] == "200 OK"
        monkeypatch.setattr(runtime.store, "ping", asyncio.Event().wait)
        status, why = await ready()
        assert (status, why) == ("503 Service Unavailable", b"Not ready: the store does not answer within 0.01 s.\n")
        assert (await runtime.probes()["/healthz"]())[0] == "200 OK", "to start it anew would not help"


def test_the_command_prints_what_the_store_knows(cli: Cli, approval: str, tmp_path: Path) -> None:
    assert cli("metrics", code=13).out == ""
    cli("run", approval, "--input", '"tea"', "--quiet", code=12)
    told = read(cli("metrics").out)
    key = (("graph", "approval"), ("model", ""), ("tenant", "default"))
    assert told["tickwork_tokens_used_total"][key] == 10
    families = {family["name"]: family for family in cli("metrics", "--json").json}
    assert families["tickwork_cost_usd"]["series"][0] == {
        "labels": {"tenant": "default", "graph": "approval", "model": ""},
        "value": 0.0001,
    }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = cli("run", approval, code=2, TICKWORK_METRICS=f"127.0.0.1:{taken.getsockname()[1]}")
        assert "cannot be listened on" in refused.err
