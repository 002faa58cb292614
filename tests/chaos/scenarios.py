"""What is done to a world. Each scenario is one function; `ALL` says what has to hold of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import asyncpg
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from tests.chaos.clocks import REREAD, WRONG
from tests.chaos.fleet import ROLES, Member
from tests.chaos.rig import LEASE, Scenario, World
from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock
from tickwork.errors import StorageError

KILLED = LEASE + 5
"""Seconds in which the others make good what a process left that was killed or frozen."""

DATABASE, BROKER = 2.0, 5.0
"""Seconds after its return in which a worker's first record is in the log."""

FROZEN = 2.5 * LEASE
AWAY = 5.0
"""Seconds for which a server is away."""


# -- processes --------------------------------------------------------------------------------------------------------


async def kill_one(role: str, world: World) -> None:
    """One of two is killed and stays dead; then the other one, when the first is back."""
    for member in world.fleet.of(role):
        world.mark()
        world.faults += 1
        await world.fleet.kill(member)
        await asyncio.sleep(KILLED)
        await again(world, member)


async def kill_at_random(world: World) -> None:
    """Whoever comes along is killed, every second or two, and started again after one."""
    until = time.monotonic() + world.seconds
    while time.monotonic() < until:
        member = world.rng.choice(world.fleet.members)
        world.faults += 1
        await world.fleet.kill(member)
        await asyncio.sleep(1)
        await world.fleet.launch(member)
        await asyncio.sleep(world.rng.uniform(0, 1))
    await asyncio.gather(*(world.fleet.until_ready(member) for member in world.fleet.members))
    world.mark()


async def kill_all(world: World) -> None:
    """All processes die at the same moment, and are started again."""
    world.faults += 1
    await asyncio.gather(*(world.fleet.kill(member) for member in world.fleet.members))
    await asyncio.gather(*(again(world, member) for member in world.fleet.members))
    world.mark()


async def freeze_one(role: str, world: World) -> None:
    """One of two stands still for longer than its lease, and goes on; then the other one."""
    for member in world.fleet.of(role):
        world.mark()
        world.faults += 1
        world.fleet.freeze(member)
        await asyncio.sleep(FROZEN)
        world.fleet.thaw(member)
        await asyncio.sleep(1)


async def freeze_all(world: World) -> None:
    """All processes stand still for longer than a lease."""
    world.faults += 1
    for member in world.fleet.members:
        world.fleet.freeze(member)
    await asyncio.sleep(FROZEN)
    for member in world.fleet.members:
        world.fleet.thaw(member)
    world.mark()


async def roll(world: World) -> None:
    """A rolling restart: SIGTERM to one process after the other, each started again before the next one."""
    for member in world.fleet.members:
        await world.fleet.terminate(member)
        await again(world, member)


async def terminate_all(world: World) -> None:
    """SIGTERM to all at once; then all are started again. What nobody was left to record may be called again."""
    world.faults += 1
    await asyncio.gather(*(world.fleet.terminate(member) for member in world.fleet.members))
    await asyncio.gather(*(again(world, member) for member in world.fleet.members))
    world.mark()


async def again(world: World, member: Member) -> None:
    """Starts a process that was ended, and waits until it is ready."""
    said = len(member.text())
    await world.fleet.launch(member)
    await world.fleet.until_ready(member, said)


async def set_clocks(world: World) -> None:
    """Every process has its own time: all clocks are set at once, then one of them every half a second, both ways."""
    clocks, members = world.fleet.clocks, world.fleet.members
    assert clocks is not None
    for n, member in enumerate(members):  # of two of a role one is ahead and one behind
        clocks.set(member.name, WRONG if n % 2 else -WRONG)
    await asyncio.sleep(3 * REREAD)  # all have noticed, and have worked with it
    until = time.monotonic() + world.seconds
    while time.monotonic() < until:
        world.faults += 1
        await asyncio.sleep(0.5)
        clocks.set(world.rng.choice(members).name, world.rng.uniform(-WRONG, WRONG))
    for member in members:
        clocks.set(member.name, 0.0)
    await asyncio.sleep(REREAD)
    world.mark()


# -- the bus ----------------------------------------------------------------------------------------------------------


async def restart_broker(world: World) -> None:
    """The broker is killed, and comes back with its data."""
    world.faults += 1
    await world.services.kill("kafka")
    await asyncio.sleep(1)
    await world.services.restore()
    world.mark()


async def storm(world: World) -> None:
    """Members of all groups come and go all the time, and take what they get with them, unacknowledged."""
    bus = KafkaBus(world.environment["TICKWORK_BUS_URL"], SystemClock())
    await bus.start()
    until = time.monotonic() + world.seconds
    groups = {
        "data-plane": ["data-plane.*"], "control-plane": ["control-plane.*"],
        "executors": ["task-inputs.*", "plan-inputs.*"],
    }  # fmt: skip

    async def come_and_go(group: str, topics: list[str]) -> None:
        while time.monotonic() < until:
            world.faults += 1
            with suppress(StorageError):
                member = await bus.subscribe(topics, group)
                with suppress(TimeoutError):
                    await asyncio.wait_for(member.receive(100), world.rng.uniform(0.5, 2))
                await member.close()
            await asyncio.sleep(world.rng.uniform(0.2, 1))

    await asyncio.gather(*(come_and_go(group, topics) for group, topics in groups.items()))
    await bus.stop()
    world.mark()


async def delete_topics(world: World) -> None:
    """All topics of this world are deleted, with all that was on its way."""
    world.faults += 1
    prefix = world.environment["TICKWORK_BUS_URL"].rpartition("/")[2] + "."
    admin = AdminClient({"bootstrap.servers": world.services.urls["TICKWORK_KAFKA_URL"].removeprefix("kafka://")})
    known = await asyncio.to_thread(admin.list_topics, timeout=10)
    mine = [topic for topic in known.topics if topic.startswith(prefix)]
    for future in admin.delete_topics(mine).values():
        await asyncio.to_thread(future.result)
    world.mark()


# -- the database -----------------------------------------------------------------------------------------------------


async def restart_database(world: World) -> None:
    """The server is killed with all its sessions, and comes back after its recovery."""
    world.faults += 1
    await world.services.kill("postgres")
    await asyncio.sleep(1)
    await world.services.restore()
    world.mark()


async def kill_backends(world: World) -> None:
    """A session's process is killed: the server throws all sessions out and recovers, again and again."""
    until = time.monotonic() + world.seconds
    while time.monotonic() < until:
        with suppress(asyncpg.PostgresError, OSError):
            async with world.admin() as connection:
                pids = await connection.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", world.database
                )
            if pids:
                os.kill(world.rng.choice(pids)["pid"], signal.SIGKILL)
                world.faults += 1
        await asyncio.sleep(world.rng.uniform(2, 5))
    while True:
        with suppress(asyncpg.PostgresError, OSError):
            async with world.admin():
                break
        await asyncio.sleep(0.02)
    world.mark()


async def exhaust(world: World) -> None:
    """All sessions are ended, and the server takes three new ones and no more."""
    world.faults += 1
    async with world.admin() as connection:
        await connection.execute(f'ALTER DATABASE "{world.database}" CONNECTION LIMIT 3')
        until = time.monotonic() + world.seconds
        while time.monotonic() < until:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
                world.database,
            )
            await asyncio.sleep(3)
        await connection.execute(f'ALTER DATABASE "{world.database}" CONNECTION LIMIT -1')
    world.mark()


async def fill_disk(world: World) -> None:
    """The disk of the database is full for a while."""
    assert world.disk is not None
    world.faults += 1
    world.disk.fill()
    await asyncio.sleep(world.seconds)
    world.disk.free()
    world.mark()


# -- what is between --------------------------------------------------------------------------------------------------


async def between(name: str, world: World, **faults: float) -> None:
    """The way to a server is bad for a while."""
    await world.proxy.order(name, "set", **faults)
    await asyncio.sleep(world.seconds)
    await world.proxy.order(name, "set")
    world.faults += 1
    world.mark()


async def half_open(name: str, world: World) -> None:
    """Connections stay, and nothing comes through any more. Then those are cut, and new ones work."""
    world.faults += 1
    await world.proxy.order(name, "set", swallow=True)
    await asyncio.sleep(2 * AWAY)
    await world.proxy.order(name, "set")
    await world.proxy.order(name, "cut")
    world.mark()


async def away(name: str, world: World) -> None:
    """Nobody is there for a while: connections are cut, and new ones are refused."""
    world.faults += 1
    await world.proxy.order(name, "refuse")
    await asyncio.sleep(AWAY)
    await world.proxy.order(name, "accept")
    world.mark()


async def cut_often(name: str, world: World) -> None:
    """All connections are cut, every second or so."""
    until = time.monotonic() + world.seconds
    while time.monotonic() < until:
        world.faults += 1
        await world.proxy.order(name, "cut")
        await asyncio.sleep(world.rng.uniform(0.5, 2))
    world.mark()


async def flush(world: World) -> None:
    """Redis forgets everything, every second."""
    client = Redis.from_url(world.services.urls["TICKWORK_REDIS_URL"])
    until = time.monotonic() + world.seconds
    while time.monotonic() < until:
        world.faults += 1
        await client.flushall()
        await asyncio.sleep(1)
    await client.aclose()
    world.mark()


async def lose_redis(world: World) -> None:
    """Redis is killed and comes back empty."""
    world.faults += 1
    await world.services.kill("redis")
    await asyncio.sleep(AWAY)
    await world.services.restore()
    world.mark()


async def bad_ways(world: World) -> None:
    """Database, objects and claims at the same time: answers to COMMIT are lost, requests fail, Redis forgets."""
    await asyncio.gather(
        between("postgres", world, after_commit=0.2, delay=0.002),
        between("s3", world, bad_request=0.2, lost_answer=0.2),
        flush(world),
    )
    world.marks = world.marks[-1:]


async def everything(world: World) -> None:
    """One fault after the other, drawn from all kinds, with a moment between them."""
    kinds: list[Callable[[World], Awaitable[None]]] = [
        partial(away, "postgres"), partial(away, "kafka"), partial(away, "redis"), partial(away, "s3"),
        partial(cut_often, "postgres"), partial(cut_often, "kafka"),
        partial(between, "postgres", after_commit=0.2), partial(between, "s3", bad_request=0.3, lost_answer=0.2),
        partial(between, "kafka", delay=0.05, jitter=0.1), flush, kill_at_random,
    ]  # fmt: skip
    seconds, world.seconds = world.seconds, 5.0
    until = time.monotonic() + 4 * seconds
    while time.monotonic() < until:
        await asyncio.gather(*(kind(world) for kind in world.rng.sample(kinds, 2)))
    world.marks = world.marks[-1:]


def named(scenarios: list[Scenario]) -> dict[str, Scenario]:
    """By name."""
    return {scenario.name: scenario for scenario in scenarios}


ALL = named(
    [
        *(
            Scenario(f"kill {role}", "one of two is killed, then the other", partial(kill_one, role), within=KILLED)
            for role in ROLES
        ),
        Scenario("kill at random", "a process every second or two", kill_at_random),
        Scenario("kill all", "all processes at once", kill_all),
        *(
            Scenario(
                f"freeze {role}", "one of two stands still past its lease", partial(freeze_one, role), within=KILLED
            )
            for role in ROLES
        ),
        Scenario("freeze all", "all processes stand still past the lease", freeze_all),
        Scenario("rolling restart", "SIGTERM to one after the other", roll),
        Scenario("terminate all", "SIGTERM to all at once", terminate_all),
        Scenario("clocks wrong", "each process up to 30 s off, and set again and again", set_clocks, clocks=True),
        Scenario("broker restart", "Kafka is killed and comes back", restart_broker, first_within=BROKER),
        Scenario("broker away", "cut and refused for 5 s", partial(away, "kafka"), first_within=BROKER),
        Scenario("broker half open", "nothing comes through for 10 s", partial(half_open, "kafka")),
        Scenario("broker cut often", "all connections, every second or so", partial(cut_often, "kafka")),
        Scenario("broker slow", "50 to 150 ms each way", partial(between, "kafka", delay=0.05, jitter=0.1)),
        Scenario("broker reset", "cut in the middle after 20 kB", partial(between, "kafka", reset_at=20_000)),
        Scenario("rebalance storm", "members come and go all the time", storm),
        Scenario("topics lost", "all topics are deleted", delete_topics),
        Scenario("database restart", "Postgres is killed and comes back", restart_database, first_within=DATABASE),
        Scenario("database sessions killed", "kill -9 of a backend, again and again", kill_backends),
        Scenario("database away", "cut and refused for 5 s", partial(away, "postgres"), first_within=DATABASE),
        Scenario("database half open", "nothing comes through for 10 s", partial(half_open, "postgres")),
        Scenario("database cut often", "all connections, every second or so", partial(cut_often, "postgres")),
        Scenario("cut after COMMIT", "30 % of all", partial(between, "postgres", after_commit=0.3)),
        Scenario("cut before COMMIT", "30 % of all", partial(between, "postgres", before_commit=0.3)),
        Scenario("database slow", "20 to 60 ms each way", partial(between, "postgres", delay=0.02, jitter=0.04)),
        Scenario("database reset", "cut in the middle after 20 kB", partial(between, "postgres", reset_at=20_000)),
        Scenario("connections exhausted", "three for all processes", exhaust),
        Scenario("disk full", "the database's, for a while", fill_disk, exits=True, small_disk=True),
        Scenario("FLUSHALL", "every second", flush),
        Scenario("Redis lost", "killed, empty after 5 s", lose_redis),
        Scenario("Redis half open", "nothing comes through for 10 s", partial(half_open, "redis")),
        Scenario("S3 errors", "30 % of all requests", partial(between, "s3", bad_request=0.3), blob_faults=True),
        Scenario("S3 after success", "30 % answers lost", partial(between, "s3", lost_answer=0.3), blob_faults=True),
        Scenario(
            "S3 slow", "0.2 s more, 5 % hang", partial(between, "s3", slow_request=0.8, hang=0.05), blob_faults=True
        ),
        Scenario("S3 away", "refused for 5 s", partial(away, "s3"), blob_faults=True),
        Scenario("bad ways", "COMMITs cut, S3 errors, FLUSHALL, at the same time", bad_ways, blob_faults=True),
        Scenario("all kinds", "two at a time, drawn", everything, blob_faults=True, exits=True),
    ]
)
