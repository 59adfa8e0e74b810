"""Commit, publish and relay together: whoever dies and whenever, every event is told, and in order per node."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.records import node_cordoned, node_failed
from fixtures.servers import Servers
from navarch_common.bus.base import Bus, PubAck
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.bus.memory import MemoryServer as BusServer
from navarch_common.clock import Clock, ManualClock, SystemClock
from navarch_common.events.base import Event
from navarch_common.events.codec import decode_event
from navarch_common.events.subjects import Subjects
from navarch_common.store import committer as committer_module
from navarch_common.store.base import Commit, StateStore
from navarch_common.store.committer import Committer
from navarch_common.store.memory import MemoryStore
from navarch_common.store.redis import RedisStore
from navarch_common.store.relay import Relay

NODES = [f"n-{number}" for number in range(6)]


@dataclass(slots=True)
class Place:
    """Where commits and events meet."""

    store: StateStore
    bus: Bus
    subjects: Subjects
    clock: Clock
    relay: Relay = field(init=False)
    committers: list[Committer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.relay = Relay(self.store, self.bus, self.subjects, self.clock, age_s=0.0)

    async def told(self) -> list[Event]:
        async with self.bus.read(self.subjects.stream("EVENTS")) as messages:
            return [decode_event(message.data) async for message in messages]


@pytest.fixture(params=["memory", "real"])
async def place(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Place]:
    subjects = Subjects(prefix=unique)
    store: StateStore
    bus: Bus
    if request.param == "memory":
        clock = ManualClock()
        store, bus = MemoryStore(clock, subjects=subjects), BusServer(clock).connect()
        made = Place(store, bus, subjects, clock)
    else:
        servers: Servers = request.getfixturevalue("servers")
        store = RedisStore(servers.redis.url, cluster=unique, subjects=subjects)
        bus = await JetStreamBus.connect(servers.nats.url, name="test", rng=random.Random(0))
        made = Place(store, bus, subjects, SystemClock())
    await bus.ensure_streams(subjects.streams())
    try:
        yield made
    finally:
        await bus.close()
        await store.close()


class PausingBus:
    """A bus whose durable publishes may wait a while before they leave."""

    def __init__(self, bus: Bus, rng: random.Random, pause_s: float) -> None:
        self._bus, self._rng, self._pause_s = bus, rng, pause_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish_durable(self, subject: str, data: bytes, **options: Any) -> PubAck:
        if self._rng.random() < 0.3:
            await asyncio.sleep(self._rng.uniform(0, self._pause_s))
        return await self._bus.publish_durable(subject, data, **options)


async def storm(place: Place, seed: int, *, commits: int = 25, pause_s: float = 0.01) -> list[str]:
    """Eight writers commit about six nodes. Some die after the commit, some pause before they publish. Returns the ids
    of all events that were committed."""
    rng = random.Random(seed)
    bus: Any = PausingBus(place.bus, rng, pause_s)
    ids: list[str] = []

    async def write() -> None:
        committer = Committer(place.store, bus, place.subjects, writer="health", clock=place.clock)
        place.committers.append(committer)
        for _ in range(commits):
            await asyncio.sleep(rng.uniform(0, 0.002))
            commit = Commit(emit=tuple(node_failed(node) for node in rng.sample(NODES, k=rng.choice([1, 1, 2]))))
            if rng.random() < 0.05:
                revision = (await place.store.commit(commit)).revision  # and dies
            else:
                revision = await committer.commit(commit)
            ids.extend(f"{revision:016d}-{number}" for number in range(len(commit.emit)))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(write(), name=f"writer {number}")
    return ids


def assert_all_told_in_order(committed: list[str], told: list[Event]) -> None:
    first_copies = list(dict.fromkeys(event.id for event in told))
    assert sorted(first_copies) == sorted(committed)
    for node in NODES:
        revisions = [event.rev for event in told if event.node == node]
        assert revisions == sorted(revisions), f"events of {node} came out of order"


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_dies_or_pauses_no_event_is_lost_doubled_or_out_of_order(place: Place, seed: int) -> None:
    committed = await storm(place, seed)
    while await place.store.outbox_length():
        assert await place.relay.step() == ""
    told = await place.told()
    assert len(told) == len(committed)
    assert_all_told_in_order(committed, told)


async def test_relays_and_publishers_at_the_same_time_change_nothing(place: Place) -> None:
    relays = [Relay(place.store, place.bus, place.subjects, place.clock, age_s=0.0) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        passing = [group.create_task(passes(relay), name="relay") for relay in relays]
        committed = await storm(place, 7)
        for task in passing:
            task.cancel()
    while await place.store.outbox_length():
        await place.relay.step()
    assert_all_told_in_order(committed, await place.told())


async def passes(relay: Relay) -> None:
    while True:
        await relay.step()
        await asyncio.sleep(0.001)


async def test_a_publisher_that_is_late_leaves_its_events_to_the_relay(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "LATE_S", 0.004)
    committed = await storm(place, 3, pause_s=0.02)
    assert any(committer.status["left_to_relay"] for committer in place.committers), "nobody was late"
    while await place.store.outbox_length():
        await place.relay.step()
    assert_all_told_in_order(committed, await place.told())


async def test_an_event_carries_its_id_and_its_trace_in_the_headers(place: Place) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    committer = Committer(place.store, place.bus, place.subjects, writer="health", clock=place.clock)
    revision = await committer.commit(Commit(emit=(node_failed("n-1"), node_cordoned("n-1")), trace=trace))
    subject = f"{place.subjects.prefix}.events.node.failed.training.n-1"
    message = await place.bus.last_message(place.subjects.stream("EVENTS"), subject)
    assert message is not None
    headers = {name.lower(): value for name, value in message.headers.items()}
    assert headers == {"nats-msg-id": f"{revision:016d}-0", "traceparent": trace}
    assert await place.store.outbox_length() == 0


@pytest.mark.integration
async def test_what_was_committed_while_nats_was_down_is_told_once_it_is_back(
    killable_servers: Servers, unique: str
) -> None:
    subjects = Subjects(prefix=unique)
    store = RedisStore(killable_servers.redis.url, cluster=unique, subjects=subjects)
    bus = await JetStreamBus.connect(killable_servers.nats.url, name="test", rng=random.Random(0))
    place = Place(store, bus, subjects, SystemClock())
    committer = Committer(store, bus, subjects, writer="health", clock=place.clock)
    await bus.ensure_streams(subjects.streams())
    before = await committer.commit(Commit(emit=(node_failed("n-1"),)))
    await asyncio.to_thread(killable_servers.nats.kill)
    during = [await committer.commit(Commit(emit=(node_failed("n-1"),))) for _ in range(20)]
    assert await store.outbox_length() == 20
    assert await place.relay.step() != ""
    await asyncio.to_thread(killable_servers.nats.start)
    running = asyncio.create_task(place.relay.run(), name="relay")
    async with asyncio.timeout(20):
        while await store.outbox_length():
            place.relay.wake()
            await asyncio.sleep(0.05)
    running.cancel()
    assert [event.rev for event in await place.told()] == [before, *during]
    await bus.close()
    await store.close()
