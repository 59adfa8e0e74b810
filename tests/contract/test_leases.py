"""Who works on which pool, over a store that is slow, deaf or taken away: one at a time, whatever each believes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import pytest

from fixtures.proxy import Proxy
from fixtures.records import node_record
from navarch_common.clock import SystemClock
from navarch_common.leases import Leases
from navarch_common.model.node import NODE
from navarch_common.store.base import Commit, Fenced, StateStore
from navarch_common.store.memory import MemoryServer, MemoryStore
from navarch_common.store.redis import RedisStore

POOL = "training"
TTL = timedelta(seconds=3)


class Line(Protocol):
    """A copy's way to the store, which may be slow or cut."""

    @property
    def store(self) -> StateStore: ...
    def slow(self, delay_s: float) -> None: ...
    def cut(self, *, cut: bool) -> None: ...


@dataclass
class MemoryLine:
    store: MemoryStore

    def slow(self, delay_s: float) -> None:
        self.store.delay_s = lambda: delay_s / 2  # asked on the way there and on the way back

    def cut(self, *, cut: bool) -> None:
        self.store.unavailable = cut


@dataclass
class RedisLine:
    store: RedisStore
    proxy: Proxy

    def slow(self, delay_s: float) -> None:
        self.proxy.delay_s = delay_s

    def cut(self, *, cut: bool) -> None:
        self.proxy.losing_replies = self.proxy.losing_requests = cut


@pytest.fixture(params=["memory", "redis"])
async def lines(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[list[Line]]:
    """Two copies' ways to one store."""
    async with AsyncExitStack() as stack:
        made: list[Line] = []
        server = MemoryServer(SystemClock())
        for _ in range(2):
            if request.param == "memory":
                made.append(MemoryLine(MemoryStore(server.clock, server=server)))
                continue
            proxy = await stack.enter_async_context(Proxy(request.getfixturevalue("redis_url")).running())
            made.append(RedisLine(RedisStore(proxy.url, cluster=unique), proxy))
            stack.push_async_callback(made[-1].store.close)
        yield made


def copy_on(line: Line, owner: str) -> Leases:
    leases = Leases(line.store, "provisioner", owner, ttl=TTL)
    leases.want({POOL})
    return leases


@asynccontextmanager
async def running(*copies: Leases) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(copy.run(), name="leases") for copy in copies]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def holds(copy: Leases) -> None:
    async with asyncio.timeout(10):
        while copy.held(POOL) is None:
            await asyncio.sleep(0.01)


@contextmanager
def never_both(*copies: Leases) -> Iterator[None]:
    """Looks every few milliseconds who believes that the pool is its own."""
    both: list[float] = []

    async def watch() -> None:
        while True:
            if sum(copy.held(POOL) is not None for copy in copies) > 1:
                both.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch(), name="watch")
    try:
        yield
    finally:
        watching.cancel()
    assert not both


async def test_a_slow_store_takes_no_lease_from_who_goes_on_renewing_it(lines: list[Line]) -> None:
    first, second = copy_on(lines[0], "a"), copy_on(lines[1], "b")
    for line in lines:
        line.slow(0.5)
    async with running(first):
        await holds(first)
        async with running(second):
            for _ in range(100):
                assert first.held(POOL) is not None
                assert second.held(POOL) is None
                await asyncio.sleep(0.04)


async def test_a_copy_that_hears_nothing_of_the_store_stops_believing_before_another_takes_over(
    lines: list[Line],
) -> None:
    first, second = copy_on(lines[0], "a"), copy_on(lines[1], "b")
    with never_both(first, second):
        async with running(first):
            await holds(first)
            async with running(second):
                lines[0].cut(cut=True)
                await holds(second)
                lines[0].cut(cut=False)
                await asyncio.sleep(TTL.total_seconds())
                assert first.held(POOL) is None, "it came back, and the pool is another's"


async def test_a_copy_that_stood_still_does_not_believe_what_it_believed_and_is_refused(lines: list[Line]) -> None:
    """Stopped and resumed: the first thing it asks is its own clock, and whatever it writes is checked by its fence."""
    first, second = copy_on(lines[0], "a"), copy_on(lines[1], "b")
    async with running(first):
        await holds(first)
    stale = await first.acquire(POOL)  # its renewing has ended, and it does not know
    assert stale is not None
    async with running(second):
        await holds(second)
        assert first.held(POOL) is None
        with pytest.raises(Fenced, match="b holds it"):
            await lines[0].store.commit(Commit(lease=stale, put={NODE.key("n-1"): node_record("n-1")}))
    assert await lines[1].store.get(NODE.key("n-1")) is None


async def test_a_copy_that_ends_in_good_order_hands_over_at_once(lines: list[Line]) -> None:
    first, second = copy_on(lines[0], "a"), copy_on(lines[1], "b")
    async with running(first):
        await holds(first)
    leases = await lines[1].store.leases("provisioner/")
    assert leases == []
    assert await second.acquire(POOL) is not None


async def test_a_copy_that_is_fenced_lets_go_and_may_take_the_pool_again_later(lines: list[Line]) -> None:
    first, second = copy_on(lines[0], "a"), copy_on(lines[1], "b")
    mine = await first.acquire(POOL)
    assert mine is not None
    first.lost(POOL)
    assert first.held(POOL) is None
    with suppress(TimeoutError):
        async with asyncio.timeout(3 * TTL.total_seconds()):
            while await second.acquire(POOL) is None:
                await asyncio.sleep(0.05)
    assert second.held(POOL) is not None
    assert await first.acquire(POOL) is None
