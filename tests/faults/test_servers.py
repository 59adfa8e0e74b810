"""What a server does to everyone at once: it is full, or it comes back and all return to it."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from fixtures.clusters import until
from fixtures.records import node_failed
from fixtures.servers import Servers
from navarch_common.bus.jetstream import RECONNECT_S, JetStreamBus
from navarch_common.clock import SystemClock
from navarch_common.events.codec import decode_event
from navarch_common.events.subjects import Subjects
from navarch_common.store.base import Commit
from navarch_common.store.committer import Committer
from navarch_common.store.redis import RedisStore
from navarch_common.store.relay import Relay

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_what_a_full_server_refuses_waits_in_the_outbox_and_is_told_once_there_is_room(
    servers: Servers, unique: str
) -> None:
    subjects = Subjects(prefix=unique)
    async with AsyncExitStack() as stack:
        store = RedisStore(servers.redis.url, cluster=unique, subjects=subjects)
        stack.push_async_callback(store.close)
        bus = await JetStreamBus.connect(servers.nats.url, name="test", rng=random.Random(1))
        stack.push_async_callback(bus.close)
        [events] = [spec for spec in subjects.streams() if spec.name == subjects.stream("EVENTS")]
        await bus.ensure_streams([replace(events, max_bytes=4096, discard_new=True)])
        committer = Committer(store, bus, subjects, writer="health", clock=SystemClock())
        revisions = [await committer.commit(Commit(emit=(node_failed(f"n-{number}"),))) for number in range(30)]
        relay = Relay(store, bus, subjects, SystemClock(), age_s=0.0)
        said = await relay.step()
        assert "maximum bytes exceeded" in said
        async with bus.read(events.name) as messages:
            told = [decode_event(message.data).rev async for message in messages]
        assert 0 < len(told) < len(revisions)
        assert await store.outbox_length() == len(revisions) - len(told)

        await bus.ensure_streams([events])
        assert await relay.step() == ""
        async with bus.read(events.name) as messages:
            told = [decode_event(message.data).rev async for message in messages]
        assert sorted(told) == revisions
        assert await store.outbox_length() == 0


async def test_when_a_server_comes_back_all_return_and_not_in_one_instant(killable_servers: Servers) -> None:
    """A hundred stand for the many: each waits a time of its own before every try, and none gives up."""
    async with AsyncExitStack() as stack:
        buses = []
        for number in range(100):
            bus = await JetStreamBus.connect(killable_servers.nats.url, name=f"n-{number}", rng=random.Random(number))
            stack.push_async_callback(bus.close)
            buses.append(bus)
        await asyncio.to_thread(killable_servers.nats.kill)
        await asyncio.to_thread(until, lambda: not any(bus.status.connected for bus in buses), "all connections lost")
        await asyncio.sleep(2 * RECONNECT_S[1])
        await asyncio.to_thread(killable_servers.nats.start)
        loop = asyncio.get_running_loop()
        back: dict[int, float] = {}
        async with asyncio.timeout(60):
            while len(back) < len(buses):
                back |= {
                    number: loop.time()
                    for number, bus in enumerate(buses)
                    if bus.status.connected and number not in back
                }
                await asyncio.sleep(0.02)
    assert max(back.values()) - min(back.values()) > RECONNECT_S[1] / 4, "all came back at the same instant"
