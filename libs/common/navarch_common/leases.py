"""Who works on which pool: leases that one copy holds, renewed while it lives, and shared evenly with the other copies.

Leases are for efficiency, the fence in each commit is for correctness: a copy that was stopped and resumed may still
believe that it holds a pool, and its commits are refused. By its own loop's clock it stops believing so when a lease
has not been renewed for its whole lifetime.

The condition that is repaired here: a pool of this copy's share (`division`) that nobody holds is taken; one that is held
here and belongs to another copy that announces itself is finished with and released. A copy of an earlier release, which
announces nothing, keeps what it has, and is given nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from navarch_common.division import divide
from navarch_common.store.base import Lease, StateStore, StoreError

TTL = timedelta(seconds=4)
"""A dead copy's pools are free after this; another copy has them half a second later, which makes less than 5 s."""
LOOKS = 8
"""Looks at who lives and holds what, in a lease's life."""
RENEWALS = 4
"""Renewals in a lease's life: three may fail before it is lost."""
HAND_OVER_S = 40.0
"""What is not finished with by then is handed over all the same: whoever takes it looks up what was begun."""
AT_ONCE = 16
"""Leases that are asked about at the same time: with a slow store, many pools one after the other would be lost."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    lease: Lease
    asked_s: float
    """Loop time at which it was last asked for. It is surely ours for its lifetime from then on."""
    leaving_s: float | None = None
    """Loop time since when it belongs to another copy."""


class Leases:
    """The leases of one service's copy, named `<service>/<pool>`."""

    def __init__(
        self,
        store: StateStore,
        service: str,
        owner: str,
        *,
        ttl: timedelta = TTL,
        on_change: Callable[[str], None] | None = None,
        finished: Callable[[str], bool] | None = None,
    ) -> None:
        """`on_change` is called with a pool whose lease was won or lost. `finished` says whether a pool that belongs to
        another copy now can be handed over: nothing is under way about it here."""
        self._store, self._prefix, self._owner, self._ttl = store, f"{service}/", owner, ttl
        self._on_change = on_change or (lambda _: None)
        self._finished = finished or (lambda _: True)
        self._held: dict[str, _Held] = {}
        self._wanted: frozenset[str] = frozenset()
        self._divided: frozenset[str] = frozenset()
        self._divided_from: tuple[frozenset[str], set[str], dict[str, str]] | None = None
        """All that the share rests on, as it was last read: seldom is it another."""
        self._share: frozenset[str] = frozenset()
        self._one_at_a_time = asyncio.Lock()

    def want(self, pools: set[str]) -> None:
        """All pools that there are. This copy's share of them is worked on from the next look on."""
        self._wanted = frozenset(pools)

    def held(self, pool: str) -> Lease | None:
        """The lease on `pool`, or None while it is not surely ours."""
        held = self._held.get(pool)
        return held.lease if held is not None and self._sure(held) else None

    def leaving(self, pool: str) -> bool:
        """Whether `pool` belongs to another copy: what is under way is finished, and nothing new is begun."""
        return pool in self._held and pool not in self._share

    async def acquire(self, pool: str) -> Lease | None:
        """The lease on `pool`, taken now where it is free and of this copy's share; None else. Raises `StoreError`."""
        if self.held(pool) is None and (pool in self._share or pool in self._wanted - self._divided):
            await self.look()
        return self.held(pool)

    def lost(self, pool: str) -> None:
        """A commit was fenced: another copy holds the pool, whatever we thought."""
        self._drop(pool)

    async def run(self) -> None:
        """Looks several times in a lease's life, over outages of the store; releases all at the end."""
        complained = ""
        try:
            while True:
                error = ""
                try:
                    await self.look()
                except StoreError as failure:
                    error = str(failure)
                self._drop_unsure()
                if error and not complained:
                    log.warning("leases not renewed", service=self._prefix[:-1], error=error)
                elif complained and not error:
                    log.info("leases renewed again", service=self._prefix[:-1])
                complained = error
                await asyncio.sleep(self._ttl.total_seconds() / LOOKS)
        finally:
            await self._release_all()

    async def look(self) -> None:
        """Reads who lives and who holds what, and brings what is held here to this copy's share. Raises `StoreError`."""
        async with self._one_at_a_time:
            wanted = self._wanted
            # First what must not be late: with a slow store the reading takes a good part of a lease's life.
            due = [(pool, held) for pool, held in sorted(self._held.items()) if self._is_due(held)]
            await self._all(*(self._renew(pool, held) for pool, held in due))
            announced = await self._store.announced(self._prefix)
            leases = await self._store.leases(self._prefix)
            holders = {lease.name.removeprefix(self._prefix): lease.owner for lease in leases}
            living = {self._owner, *(copy.name.removeprefix(self._prefix) for copy in announced)}
            if (wanted, living, holders) != self._divided_from:
                owners = divide(wanted, living, holders)
                self._share = frozenset(pool for pool, owner in owners.items() if owner == self._owner)
                self._divided, self._divided_from = wanted, (wanted, living, holders)
            pools = sorted(self._share | set(self._held))
            await self._all(*(self._bring(pool, holders.get(pool, "")) for pool in pools))

    async def _all(self, *works: Coroutine[Any, Any, None]) -> None:
        """Does all of it: one that fails keeps no other from being done. Raises the first `StoreError`."""
        if len(works) == 1:
            await works[0]
        if len(works) <= 1:
            return
        free = asyncio.Semaphore(AT_ONCE)
        errors: list[StoreError] = []

        async def one(work: Coroutine[Any, Any, None]) -> None:
            async with free:
                try:
                    await work
                except StoreError as error:
                    errors.append(error)

        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(one(work), name=f"leases of {self._prefix}")
        if errors:
            raise errors[0]

    async def _bring(self, pool: str, holder: str) -> None:
        """`holder` is who holds it by the store's word, empty where nobody does. Then the store was rolled back, or its clock
        jumped: whether our lease is still good, its renewal tells."""
        held = self._held.get(pool)
        if held is None or not self._sure(held) or holder not in ("", self._owner):
            self._drop(pool)
            if holder in ("", self._owner):
                await self._take(pool)
        elif pool not in self._share and self._may_leave(pool, held):
            self._drop(pool, "handed over")
            await self._store.release(held.lease)
        elif not holder:
            await self._renew(pool, held)

    async def _take(self, pool: str) -> None:
        if pool not in self._share:
            return
        asked_s = _now()
        lease = await self._store.acquire(self._prefix + pool, self._owner, self._ttl)
        if lease is None:
            return
        self._held[pool] = _Held(lease, asked_s)
        log.info("lease taken", service=self._prefix[:-1], pool=pool, fence=lease.fence)
        self._on_change(pool)

    async def _renew(self, pool: str, held: _Held) -> None:
        asked_s = _now()
        renewed = await self._store.renew(held.lease, self._ttl)
        if self._held.get(pool) is not held:
            return
        if renewed is None:
            self._drop(pool)
            await self._take(pool)
        else:
            held.lease, held.asked_s = renewed, asked_s

    def _may_leave(self, pool: str, held: _Held) -> bool:
        held.leaving_s = _now() if held.leaving_s is None else held.leaving_s
        return self._finished(pool) or _now() - held.leaving_s > HAND_OVER_S

    def _is_due(self, held: _Held) -> bool:
        return self._sure(held) and _now() - held.asked_s >= self._ttl.total_seconds() / RENEWALS

    def _sure(self, held: _Held) -> bool:
        return _now() < held.asked_s + self._ttl.total_seconds()

    def _drop_unsure(self) -> None:
        for pool, held in list(self._held.items()):
            if not self._sure(held):
                self._drop(pool)

    def _drop(self, pool: str, why: str = "lost") -> None:
        if self._held.pop(pool, None) is not None:
            log.warning("lease given up", service=self._prefix[:-1], pool=pool, why=why)
            self._on_change(pool)

    async def _release_all(self) -> None:
        held, self._held = self._held, {}
        for one in held.values():
            try:
                async with asyncio.timeout(1.0):
                    await self._store.release(one.lease)
            except (StoreError, TimeoutError):
                return


def _now() -> float:
    return asyncio.get_running_loop().time()
