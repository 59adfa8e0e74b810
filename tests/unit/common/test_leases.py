"""Leases of copies side by side over one store: shares, hand-over, death, stalls, and a store that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from navarch_common.leases import Leases
from navarch_common.store.base import Commit, Fenced, StoreUnavailable
from navarch_common.store.memory import MemoryServer, MemoryStore
from support.deps import until

TTL = timedelta(seconds=0.4)
POOLS = {f"pool-{n}" for n in range(6)}


class LoopClock:
    """The store's clock goes with the loop's."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


class Copy:
    """One copy: its leases, its own connection, and whether it lives."""

    def __init__(self, server: MemoryServer, name: str, finished: Callable[[str], bool] | None = None) -> None:
        self.name = name
        self.store = MemoryStore(server.clock, server=server)
        self.leases = Leases(self.store, "provisioner", name, ttl=TTL, finished=finished)
        self.leases.want(set(POOLS))
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.tasks = [
            asyncio.create_task(self.leases.run(), name=f"leases {self.name}"),
            asyncio.create_task(self._announce(), name=f"announce {self.name}"),
        ]

    async def _announce(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                await self.store.announce(f"provisioner/{self.name}", b"", TTL * 0.75)
            await asyncio.sleep(TTL.total_seconds() / 8)

    def kill(self) -> None:
        """Nothing more comes of it: what it would still say on its way out is lost too."""
        self.store.unavailable = True
        for task in self.tasks:
            task.cancel()

    @property
    def pools(self) -> set[str]:
        return {pool for pool in POOLS if self.leases.held(pool) is not None}


@asynccontextmanager
async def copies(*names: str, finished: Callable[[str], bool] | None = None) -> AsyncIterator[list[Copy]]:
    server = MemoryServer(LoopClock())
    made = [Copy(server, name, finished) for name in names]
    try:
        yield made
    finally:
        for one in made:
            one.kill()


def shared(*made: Copy) -> Callable[[], bool]:
    """Whether they hold everything, each as much as the others."""

    def holds() -> bool:
        counts = [len(one.pools) for one in made]
        return set().union(*(one.pools for one in made)) == POOLS and max(counts) - min(counts) <= 1

    return holds


async def test_one_copy_alone_takes_everything() -> None:
    async with copies("a") as [a]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")


async def test_a_copy_that_joins_is_handed_its_share_and_each_pool_has_one_believing_holder_all_the_time() -> None:
    async with copies("a", "b", "c") as [a, b, c]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        watched = asyncio.create_task(never_two(a, b, c))
        b.start()
        await until(shared(a, b), "a and b share")
        c.start()
        await until(shared(a, b, c), "all three share")
        watched.cancel()
        assert not (watched.done() and watched.exception())


async def never_two(*made: Copy) -> None:
    while True:
        for pool in POOLS:
            believing = [one.name for one in made if pool in one.pools]
            assert len(believing) <= 1, f"{believing} both believe that they hold {pool}"
        await asyncio.sleep(0)


async def test_a_dead_copys_pools_move_to_the_living_and_nothing_else_does() -> None:
    async with copies("a", "b", "c") as [a, b, c]:
        for one in (a, b, c):
            one.start()
        await until(shared(a, b, c), "all three share")
        kept = a.pools | b.pools
        fences = {pool: lease.fence for one in (a, b) for pool in one.pools if (lease := one.leases.held(pool))}
        c.kill()
        await until(shared(a, b), "a and b share what c had")
        now = {pool: lease.fence for one in (a, b) for pool in kept if (lease := one.leases.held(pool))}
        assert now == fences


async def test_a_copy_that_stops_in_good_order_leaves_its_pools_free_at_once() -> None:
    async with copies("a") as [a]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        for task in a.tasks:
            task.cancel()
        await asyncio.wait(a.tasks)
        assert await a.store.leases() == []


async def test_a_pool_with_work_under_way_is_handed_over_when_it_is_finished() -> None:
    busy = set(POOLS)
    async with copies("a", "b", finished=lambda pool: pool not in busy) as [a, b]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        b.start()
        await until(lambda: any(a.leases.leaving(pool) for pool in POOLS), "a knows of its neighbour")
        await asyncio.sleep(TTL.total_seconds() * 1.5)
        assert a.pools == POOLS
        assert sum(a.leases.leaving(pool) for pool in POOLS) == 3
        busy.clear()
        await until(shared(a, b), "they share")
        assert not any(a.leases.leaving(pool) for pool in POOLS)


async def test_who_holds_a_lease_without_announcing_itself_keeps_it() -> None:
    """A copy of a release that does not announce itself yet."""
    async with copies("a") as [a]:
        for pool in sorted(POOLS)[:3]:
            assert await a.store.acquire(f"provisioner/{pool}", "of-old", timedelta(hours=1))
        a.start()
        await until(lambda: a.pools == set(sorted(POOLS)[3:]), "a has the rest")


async def test_a_copy_that_cannot_reach_the_store_stops_believing_before_anyone_else_can_take_over() -> None:
    async with copies("a", "b") as [a, b]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        watched = asyncio.create_task(never_two(a, b))
        b.start()
        await until(shared(a, b), "they share")
        a.store.unavailable = True
        await until(lambda: b.pools == POOLS, "b has everything")
        assert a.pools == set()
        a.store.unavailable = False
        await until(shared(a, b), "they share again")
        watched.cancel()
        assert not (watched.done() and watched.exception())


async def test_a_copy_that_was_stopped_and_resumed_knows_at_once_and_is_fenced_where_it_does_not() -> None:
    async with copies("a", "b") as [a, b]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        before = a.leases.held("pool-0")
        assert before is not None
        a.kill()  # as SIGSTOP does it: nothing of it runs, and its time goes on
        b.start()
        await until(lambda: b.pools == POOLS, "b has everything")
        a.store.unavailable = False
        assert a.leases.held("pool-0") is None
        with pytest.raises(Fenced):
            await a.store.commit(Commit(lease=before))


async def test_a_store_that_forgot_its_leases_leaves_no_two_whose_commits_pass() -> None:
    """For a moment two may believe; the fence says who is right, and the other finds out at its next renewal."""
    async with copies("a", "b") as [a, b]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        old = a.leases.held("pool-0")
        a.store.server.contents.leases.clear()
        b.start()
        await until(shared(a, b), "they share")
        new = next(lease for one in (a, b) if (lease := one.leases.held("pool-0")))
        assert old is not None
        assert new.fence > old.fence
        with pytest.raises(Fenced):
            await a.store.commit(Commit(lease=old))
        await b.store.commit(Commit(lease=new))


async def test_a_copy_whose_lease_another_has_by_the_stores_word_stops_believing_at_its_next_look() -> None:
    """The store was rolled back, and somebody else was quicker."""
    async with copies("a", "b") as [a, b]:
        await a.leases.look()
        assert a.leases.held("pool-0") is not None
        a.store.server.contents.leases.clear()
        assert await b.store.acquire("provisioner/pool-0", "b", TTL) is not None
        await a.leases.look()
        assert a.leases.held("pool-0") is None
        assert a.pools == POOLS - {"pool-0"}  # the others are free, and taken again with a new fence


async def test_a_slow_store_takes_no_lease_away() -> None:
    """An eighth of a lease's life for each answer: one after the other, six pools would not be renewed in time."""
    async with copies("a", "b") as [a, b]:
        for one in (a, b):
            one.start()
        await until(shared(a, b), "they share")
        fences = {lease.name: lease.fence for lease in await a.store.leases()}
        for one in (a, b):
            one.store.delay_s = lambda: TTL.total_seconds() / 16
        await asyncio.sleep(TTL.total_seconds() * 4)
        for one in (a, b):
            one.store.delay_s = lambda: 0.0
        assert {lease.name: lease.fence for lease in await a.store.leases()} == fences


async def test_a_pool_that_is_no_more_is_given_up() -> None:
    async with copies("a") as [a]:
        a.start()
        await until(lambda: a.pools == POOLS, "a holds everything")
        a.leases.want({"pool-1"})
        await until(lambda: a.pools == {"pool-1"}, "only one is left")
        assert [lease.name for lease in await a.store.leases()] == ["provisioner/pool-1"]


async def test_what_is_asked_for_before_the_first_look_is_looked_for_at_once() -> None:
    async with copies("a", "b") as [a, b]:
        assert await a.leases.acquire("pool-3") is not None
        assert await b.leases.acquire("pool-3") is None
        assert await a.leases.acquire("no-pool") is None
