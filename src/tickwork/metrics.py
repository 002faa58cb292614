"""What Prometheus may ask: counters and sizes of this process, usage and budgets of all tenants, with bounded labels.

    tickwork_data_plane_recorded_total       counters and sizes of each component, from `Runtime.metrics()`
    tickwork_tokens_used_total{tenant,...}   what executions used since the first record, from the ledger
    tickwork_budget_spent{tenant,policy,...} every budget of a tenant, with what is reserved and its limit
    tickwork_verdicts_total{action,...}      verdicts that this process recorded
    tickwork_up{server}                      whether each server answered just now, and what its adapter counts of it

A metric never has more than MAX_SERIES series and none is named after a lifetime: the tenants, graphs and models that
come too late are counted together as `other`. TICKWORK_METRICS=HOST:PORT serves them at http://HOST:PORT/metrics.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from tickwork import __version__
from tickwork.adapters.meters import Meters
from tickwork.errors import TickworkError
from tickwork.model.records import Event
from tickwork.model.spending import CUSTOM_SCALE, UsageQuery, UsageRow
from tickwork.model.tallies import COLUMNS
from tickwork.model.windows import MINUTE
from tickwork.probes import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from tickwork.accounts import Accounts
    from tickwork.adapters.meters import Histogram
    from tickwork.model.lifetime import TimerRow
    from tickwork.model.messages import Committed
    from tickwork.ports import Clock

MAX_SERIES = 1_000
"""Series of one metric; what comes later is counted as `other`."""

MAX_MODELS = 100
"""Models that have series of their own."""

OTHER = "other"
SETTLED = 2
"""Minutes after which nothing is added to a minute any more."""

ANSWER = 2.0
"""Seconds in which a server answers that is up: a scrape has ten."""

SIZES = ("queued", "offered", "moving", "idle", "held", "parked", "limit")
"""How the names of those end that go up and down; the others only grow."""

VARIABLE = "TICKWORK_METRICS"

Key = tuple[str, ...]

USED: tuple[tuple[str, str, int, str], ...] = (
    ("executions", "executions", 1, "Attempts that were made"),
    ("tokens_in", "tokens_in", 1, "Tokens sent to models"),
    ("tokens_out", "tokens_out", 1, "Tokens received from models"),
    ("tokens_used", "tokens_used", 1, "Tokens that count against budgets"),
    ("cost_nano_usd", "cost_usd", 1_000_000_000, "Cost in US dollars"),
    ("unpriced", "unpriced_executions", 1, "Executions whose cost is not wholly known"),
    ("latency_us", "execution_seconds", 1_000_000, "Time that executions ran"),
    ("queue_us", "queue_seconds", 1_000_000, "Time between an execution's cause and its start"),
)
"""What is told of usage: the column, the metric, the kept units of one unit, and what it is."""


class Spread(msgspec.Struct):
    """One series of a histogram."""

    key: Key
    buckets: list[tuple[str, int]]
    """Upper bounds, with how many were no greater; the last one, `+Inf`, has all."""
    sum: float


class Family(msgspec.Struct):
    """One metric: its series by the values of its labels; those of a histogram are its spreads."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: Key = ()
    series: list[tuple[Key, float]] = []
    spreads: list[Spread] = []


@runtime_checkable
class Asked(Protocol):
    """An adapter that can ask its server whether it is there."""

    async def ping(self) -> object:
        """Raises StorageError when the server does not answer."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A store, as far as its timers are asked for."""

    async def due_timers(self, ahead: int = 0, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        """Timers that are due, earliest first."""
        ...


@runtime_checkable
class Metered(Protocol):
    """An adapter that counts its own work."""

    @property
    def meters(self) -> Meters:
        """Its numbers."""
        ...


class Bounded:
    """Sums by key; once there are MAX_SERIES, keys that are new are added up as `other`."""

    def __init__(self, most: int = MAX_SERIES) -> None:
        self._most = most - 1
        self.sums: dict[Key, list[int]] = {}

    def add(self, key: Key, amounts: list[int]) -> None:
        """Adds to the sums of a key."""
        if key not in self.sums and len(self.sums) >= self._most:
            key = tuple(OTHER for _ in key)
        known = self.sums.get(key)
        self.sums[key] = amounts if known is None else [a + b for a, b in zip(known, amounts, strict=True)]


class Used:
    """Usage since the first record. Minutes that are over are read once, so a look costs what the last minutes hold."""

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts, self._clock = accounts, clock
        self._until = 0
        self._models: set[str] = set()
        self._sums, self._custom = Bounded(), Bounded()
        self.tenants: list[str] = []
        """Those that used something, as far as they have series of their own."""

    async def families(self) -> list[Family]:
        """The metrics, with what was recorded a moment ago."""
        over = (self._clock.now() // MINUTE - SETTLED) * MINUTE
        if over > self._until:
            self._add(await self._rows(self._until, over), self._sums, self._custom)
            self._until = over
        sums, custom = _copy(self._sums), _copy(self._custom)
        self._add(await self._rows(self._until, None), sums, custom)
        self.tenants = sorted({key[0] for key in sums.sums if key[0] != OTHER})
        found = [
            Family(
                f"tickwork_{metric}",
                "counter",
                about,
                ("tenant", "graph", "model"),
                [(key, amounts[COLUMNS.index(column)] / units) for key, amounts in sums.sums.items()],
            )
            for column, metric, units, about in USED
        ]
        counted = [(key, amounts[0] / CUSTOM_SCALE) for key, amounts in custom.sums.items()]
        labels = ("tenant", "graph", "counter")
        return [*found, Family("tickwork_custom", "counter", "Counters that user code recorded", labels, counted)]

    async def _rows(self, since: int, until: int | None) -> list[UsageRow]:
        query = UsageQuery(tenant_id=None, since=since, until=until, by=("tenant", "graph", "model"))
        return await self._accounts.usage(query)

    def _add(self, rows: Iterable[UsageRow], sums: Bounded, custom: Bounded) -> None:
        for row in sorted(rows, key=lambda row: -row.executions):
            tenant, graph, model = row.key
            if model and model not in self._models:
                if len(self._models) >= MAX_MODELS:
                    model = OTHER
                else:
                    self._models.add(model)
            sums.add((tenant, graph, model), [getattr(row, column) for column in COLUMNS])
            for name, amount in row.custom.items():
                custom.add((tenant, graph, name), [amount])


class Measurements:
    """All metrics of one process. `measure` gives its counters and sizes; without it there are none.

    `usage`: tell usage, budgets and timers too. Of many processes on one store those need to be told by few.
    """

    usage = True

    servers: Mapping[str, object] = {}
    """The adapters of this process, by what they are: bus, state, blob, kv."""

    def __init__(self, accounts: Accounts, clock: Clock, measure: Callable[[], dict[str, float]] | None = None) -> None:
        self._accounts = accounts
        self._clock = clock
        self._measure = measure
        self._used = Used(accounts, clock)
        self._verdicts = Bounded()

    def seen(self, reference: Committed) -> None:
        """Counts the verdicts among entries that were recorded."""
        for entry in reference.entries:
            if type(entry) is Event and entry.type == "verdict":
                data = entry.data
                shadow = "true" if data["shadow"] else "false"
                self._verdicts.add((reference.tenant_id, data["policy"], data["action"], shadow), [1])

    async def measurements(self) -> list[Family]:
        """Every metric as it stands now."""
        found = [Family("tickwork_build_info", "gauge", "The version that runs", ("version",), [((__version__,), 1)])]
        if self._measure is not None:
            found += [_of_component(name, value) for name, value in self._measure().items()]
            counted = [(key, float(amounts[0])) for key, amounts in self._verdicts.sums.items()]
            labels = ("tenant", "policy", "action", "shadow")
            found.append(Family("tickwork_verdicts", "counter", "Verdicts recorded by this process", labels, counted))
        up = await answering(self.servers)
        found += of_servers(self.servers, up)
        if self.usage and up.get("state", True):  # without the store the rest is told all the same
            found += await self._used.families()
            found += await self._budgets()
            found.append(await self._timers())
        return found

    async def page(self) -> tuple[str, bytes]:
        """What is answered at /metrics."""
        return OK, exposition(await self.measurements())

    async def _timers(self) -> Family:
        """By this process's clock, which is near enough for seconds."""
        store = self.servers.get("state")
        series: list[tuple[Key, float]] = []
        if isinstance(store, Timed):
            due, _ = await store.due_timers(limit=1)
            late = max(self._clock.now() - due[0].due, 0) / 1e6 if due else 0.0
            series.append(((), late))
        about = "Seconds that the earliest timer is overdue which has not fired"
        return Family("tickwork_timers_late_seconds", "gauge", about, (), series)

    async def _budgets(self) -> list[Family]:
        labels = ("tenant", "policy", "graph", "aggregate")
        series: dict[str, list[tuple[Key, float]]] = {"spent": [], "reserved": [], "limit": []}
        left_out = 0
        for tenant in self._used.tenants:
            for budget in await self._accounts.budgets(tenant=tenant):
                if len(series["spent"]) >= MAX_SERIES:
                    left_out += 1
                    continue
                key = (tenant, budget.policy, budget.graph, budget.aggregate)
                for name, amount in (
                    ("spent", budget.spent or Decimal(0)), ("reserved", budget.reserved), ("limit", budget.limit)
                ):  # fmt: skip
                    series[name].append((key, float(amount)))
        what = {
            "spent": "What is spent in the window of a tenant's budget",
            "reserved": "What is reserved beside it for work in flight",
            "limit": "Its limit",
        }
        found = [Family(f"tickwork_budget_{name}", "gauge", what[name], labels, rows) for name, rows in series.items()]
        about = "Budgets that have no series, because there are too many"
        return [*found, Family("tickwork_budgets_left_out", "gauge", about, (), [((), left_out)])]


def _of_component(name: str, value: float) -> Family:
    size = name.rpartition("_")[2] in SIZES
    words = name.replace("_", " ")
    about = f"Now: {words}" if size else f"Since this process began: {words}"
    return Family(f"tickwork_{name}", "gauge" if size else "counter", about, (), [((), value)])


async def answering(servers: Mapping[str, object]) -> dict[str, bool]:
    """Whether each server answers within ANSWER, as far as it can be asked: what lies in the process cannot."""

    async def answers(adapter: Asked) -> bool:
        try:
            async with asyncio.timeout(ANSWER):
                await adapter.ping()
        except (TickworkError, TimeoutError):
            return False
        return True

    asked = {name: adapter for name, adapter in servers.items() if isinstance(adapter, Asked)}
    return dict(zip(asked, await asyncio.gather(*map(answers, asked.values())), strict=True))


def of_servers(servers: Mapping[str, object], up: Mapping[str, bool]) -> list[Family]:
    """What is told of each server: whether it is up, tries, and what else its adapter counts."""
    retries = Family(
        "tickwork_retries", "counter", "What was tried again at a server, by the reason", ("server", "reason")
    )
    about = "Whether this server answered this process just now"
    found = [Family("tickwork_up", "gauge", about, ("server",), [((name,), float(up[name])) for name in up]), retries]
    for server, adapter in servers.items():
        if not isinstance(adapter, Metered):
            continue
        meters = adapter.meters
        retries.series += [((server, reason), float(count)) for reason, count in meters.retries.items()]
        for gauge in meters.gauges:
            name = f"tickwork_{server}_{gauge.name}"
            found.append(Family(name, "gauge", gauge.about, gauge.labels, list(gauge.read().items())))
        found += [_of_histogram(server, histogram) for histogram in meters.histograms]
    return found


def _of_histogram(server: str, histogram: Histogram) -> Family:
    buckets, all_of_it = [], 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        all_of_it += count
        buckets.append((bound, all_of_it))
    name, spread = f"tickwork_{server}_{histogram.name}", Spread((), buckets, histogram.sum)
    return Family(name, "histogram", histogram.about, (), [], [spread])


def _copy(bounded: Bounded) -> Bounded:
    made = Bounded()
    made.sums = dict(bounded.sums)
    return made


# -- the text that Prometheus reads -----------------------------------------------------------------------------------


def exposition(families: Iterable[Family]) -> bytes:
    """The text format of Prometheus, version 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(families))
    return generate_latest(registry)


class _Told:
    """Hands families to the library that writes them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for family in self._families:
            if family.kind == "histogram":
                told = HistogramMetricFamily(family.name, family.about, labels=family.labels)
                for spread in family.spreads:
                    told.add_metric(spread.key, spread.buckets, spread.sum)
                yield told
                continue
            made = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(
                family.name, family.about, labels=family.labels
            )
            for key, value in sorted(family.series):
                made.add_metric(key, value)
            yield made


def families_of(told: Any) -> list[Family]:
    """What another process told of its metrics."""
    return msgspec.convert(told, list[Family])
