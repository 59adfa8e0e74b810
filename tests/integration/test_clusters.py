"""Navarch's bus and store over servers in the numbers that production has: three NATS servers, a Redis with a replica
and Sentinels. One of them is killed, hung or cut off, and nothing that was acknowledged is lost."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.clusters import DOWN_AFTER_S, NatsCluster, RedisGroup, until
from fixtures.records import node_failed, node_record
from fixtures.servers import nats_binary, redis_binary
from fixtures.weather import Weather, weather
from navarch_common.bus.base import BusError, PubAck
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.store.base import Commit, StoreUnavailable
from navarch_common.store.redis import RedisStore

pytestmark = [
    pytest.mark.long,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(nats_binary() is None or redis_binary() is None, reason="clusters need the servers' binaries"),
]


@pytest.fixture
def network() -> Iterator[Weather]:
    with weather() as made:
        yield made


@pytest.fixture
def redis(tmp_path: Path, network: Weather) -> Iterator[RedisGroup]:
    group = RedisGroup(tmp_path, network)
    try:
        group.start()
        yield group
    finally:
        group.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    made = NatsCluster(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
async def store(redis: RedisGroup) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis.url, timeout_s=1.0)
    try:
        yield store
    finally:
        await store.close()


def put(record: NodeRecord) -> dict[AnyKey, Record]:
    return {NODE.key(record.node): record}


async def commit(store: RedisStore, number: int) -> bool:
    """Whether it surely counts."""
    node = f"training-{number}"
    try:
        await store.commit(Commit(put=put(node_record(node)), emit=(node_failed(node),)))
    except StoreUnavailable:
        return False
    return True


async def commit_until(store: RedisStore, acknowledged: list[int], end: asyncio.Event) -> None:
    """Commits one node after the other, and notes those that were acknowledged."""
    number = len(acknowledged)
    while not end.is_set():
        number += 1
        if await commit(store, number):
            acknowledged.append(number)
        await asyncio.sleep(0.005)


async def lost(store: RedisStore, acknowledged: list[int]) -> set[int]:
    while True:
        with suppress(StoreUnavailable):
            told = {entry.order for entry in await store.outbox(limit=100_000)}
            found = {int(one.record.node.partition("-")[2]) for one in await store.records(NODE)}
            assert len(told) == len(found)
            return set(acknowledged) - found


# Redis behind Sentinels


async def test_a_commit_is_on_the_replica_before_it_counts(redis: RedisGroup, store: RedisStore) -> None:
    assert await commit(store, 1)
    redis.redis[redis.primary()].kill()
    until(lambda: redis.primary() == "redis-1", "a failover")
    assert await lost(store, [1]) == set()


async def test_without_its_replica_a_commit_is_unknown_until_the_sentinels_say_that_none_is_there(
    redis: RedisGroup, store: RedisStore
) -> None:
    assert await commit(store, 1)
    redis.redis[redis.replica()].pause()
    assert not await commit(store, 2)
    began = time.monotonic()
    while not await commit(store, 3):
        assert time.monotonic() - began < 30
    assert time.monotonic() - began > 10 * DOWN_AFTER_S - 2
    redis.redis[redis.replica()].resume()
    until(redis.replicated, "the replica back")
    assert await commit(store, 4)
    assert await lost(store, [1, 2, 3, 4]) == set()


async def test_when_the_primary_is_killed_another_takes_over_with_all_that_was_acknowledged(
    redis: RedisGroup, store: RedisStore
) -> None:
    acknowledged: list[int] = []
    end = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(commit_until(store, acknowledged, end))
        await asyncio.sleep(0.5)
        redis.redis[redis.primary()].kill()
        before = len(acknowledged)
        await asyncio.to_thread(until, lambda: len(acknowledged) > before + 10, "commits after the failover")
        end.set()
    assert before > 10
    assert redis.primary() == "redis-1"
    assert await lost(store, acknowledged) == set()
    # The old one comes back believing that it is the primary; it must not be believed.
    redis.redis["redis-0"].start()
    await asyncio.to_thread(until, redis.replicated, "the old primary following", 30.0)
    assert redis.primary() == "redis-1"
    assert await lost(store, acknowledged) == set()


async def test_what_a_failover_would_forget_never_counted(
    redis: RedisGroup, store: RedisStore, network: Weather
) -> None:
    assert await commit(store, 1)
    network.cut_replication("redis-0")
    acknowledged = [1, *[number for number in range(2, 10) if await commit(store, number)]]
    redis.redis["redis-0"].kill()
    await asyncio.to_thread(until, lambda: redis.primary() == "redis-1", "a failover")
    assert await lost(store, acknowledged) == set()


async def test_a_hung_primary_that_comes_back_after_a_failover_is_not_believed(
    redis: RedisGroup, store: RedisStore
) -> None:
    acknowledged: list[int] = []
    end = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(commit_until(store, acknowledged, end))
        await asyncio.sleep(0.5)
        redis.redis["redis-0"].pause()
        await asyncio.to_thread(until, lambda: redis.primary() == "redis-1", "a failover")
        redis.redis["redis-0"].resume()
        before = len(acknowledged)
        await asyncio.to_thread(until, lambda: len(acknowledged) > before + 100, "commits after the failover")
        await asyncio.to_thread(until, redis.replicated, "the old primary following", 30.0)
        end.set()
    assert await lost(store, acknowledged) == set()


async def test_it_is_said_when_a_replica_is_missing(redis: RedisGroup, store: RedisStore) -> None:
    assert await store.check() == []
    redis.redis[redis.replica()].kill()
    until(lambda: not redis.replicated(), "the primary's notice of it")
    assert await store.check() == ["the state server has 0 of 1 replicas: what it alone has is lost with it"]


# Three NATS servers


async def publish_until(bus: JetStreamBus, subjects: Subjects, stored: list[int], end: asyncio.Event) -> None:
    """Publishes one event after the other, each with its id until it is stored."""
    number = 0
    while not end.is_set():
        number += 1
        while not end.is_set():
            if await published(bus, subjects, number):
                stored.append(number)
                break
            await asyncio.sleep(0.1)


async def published(bus: JetStreamBus, subjects: Subjects, number: int) -> PubAck | None:
    subject = subjects.event(node_failed(f"training-{number}"))
    with suppress(BusError):
        return await bus.publish_durable(subject, b"%d" % number, msg_id=f"{number}-0", timeout_s=1.0)
    return None


async def stored_in(bus: JetStreamBus, subjects: Subjects) -> list[int]:
    """What the events are, once a cluster that lost servers answers again."""
    for _ in range(100):
        with suppress(BusError):
            async with bus.read(subjects.stream("EVENTS")) as messages:
                return [int(message.data) async for message in messages]
        await asyncio.sleep(0.2)
    raise AssertionError("the stream cannot be read")


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_when_the_leader_of_the_events_is_gone_no_event_is_lost_or_doubled(
    cluster: NatsCluster, how: str
) -> None:
    bus = await JetStreamBus.connect(cluster.url, name="test", rng=random.Random(1))
    subjects = Subjects()
    stored: list[int] = []
    end = asyncio.Event()
    try:
        assert await bus.ensure_streams(subjects.streams(), replicas=3) == []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish_until(bus, subjects, stored, end))
            await asyncio.sleep(0.5)
            leader = cluster.parts[cluster.leader(subjects.stream("EVENTS"))]
            leader.kill() if how == "killed" else leader.pause()
            before = len(stored)
            await asyncio.to_thread(until, lambda: len(stored) > before + 10, "events after the loss", 30.0)
            leader.resume() if how == "hung" else leader.start()
            await asyncio.sleep(1.0)
            end.set()
        found = await stored_in(bus, subjects)
        assert before > 10
        assert len(found) == len(set(found))
        assert set(stored) <= set(found)
    finally:
        await bus.close()


async def test_all_three_may_be_killed_at_once_and_have_all_that_was_stored(cluster: NatsCluster) -> None:
    bus = await JetStreamBus.connect(cluster.url, name="test", rng=random.Random(1))
    subjects = Subjects()
    try:
        await bus.ensure_streams(subjects.streams(), replicas=3)
        stored = [number for number in range(200) if await published(bus, subjects, number)]
        cluster.kill()
        cluster.start()
        found = await stored_in(bus, subjects)
        assert len(stored) == 200
        assert found == stored
    finally:
        await bus.close()
