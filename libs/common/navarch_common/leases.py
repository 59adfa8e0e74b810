"""Who works on which pool: leases that one copy holds, renewed while it lives.

Leases are for efficiency, the fence in each commit is for correctness: a copy that was stopped and resumed may still
believe that it holds a pool, and its commits are refused. By its own loop's clock it stops believing so when a lease
has not been renewed for its whole lifetime.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from navarch_common.store.base import Lease, StateStore, StoreError, StoreUnavailable

TTL = timedelta(seconds=5)
"""A dead copy's pools move to another within this."""

log = structlog.get_logger(__name__)


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
    ) -> None:
        """`on_change` is called with a pool whose lease was won or lost."""
        self._store, self._service, self._owner, self._ttl = store, service, owner, ttl
        self._on_change = on_change or (lambda _: None)
        self._held: dict[str, tuple[Lease, float]] = {}
        """By pool, the lease and the loop time until which it is surely ours."""
        self._wanted: set[str] = set()

    def want(self, pools: set[str]) -> None:
        """The pools to work on. Those that are not wanted any more are given up at the next turn of `run`."""
        self._wanted = set(pools)

    def held(self, pool: str) -> Lease | None:
        """The lease on `pool`, or None while it is not ours."""
        lease, sure_until = self._held.get(pool, (None, 0.0))
        return lease if asyncio.get_running_loop().time() < sure_until else None

    async def acquire(self, pool: str) -> Lease | None:
        """The lease on `pool`, taken now where it is free; None while another copy holds it. Raises `StoreError`."""
        held = self.held(pool)
        if held is not None:
            return held
        asked_at = asyncio.get_running_loop().time()
        lease = await self._store.acquire(f"{self._service}/{pool}", self._owner, self._ttl)
        if lease is None:
            self._drop(pool)
            return None
        self._held[pool] = (lease, asked_at + self._ttl.total_seconds())
        log.info("lease taken", service=self._service, pool=pool, fence=lease.fence)
        self._on_change(pool)
        return lease

    def lost(self, pool: str) -> None:
        """A commit was fenced: another copy holds the pool, whatever we thought."""
        self._drop(pool)

    async def run(self) -> None:
        """Renews what is held and tries for what is wanted, three times in a lease's life; releases all at the end."""
        try:
            while True:
                await self._turn()
                await asyncio.sleep(self._ttl.total_seconds() / 3.5)
        finally:
            await self._release_all()

    async def _turn(self) -> None:
        for pool in sorted(self._wanted | set(self._held)):
            try:
                await self._renew_or_acquire(pool)
            except StoreUnavailable as error:
                if pool in self._held and self.held(pool) is None:
                    self._drop(pool)
                log.warning("lease not renewed", service=self._service, pool=pool, error=str(error))
                return

    async def _renew_or_acquire(self, pool: str) -> None:
        held = self.held(pool)
        if held is None:
            if pool in self._wanted:
                await self.acquire(pool)
            else:
                self._held.pop(pool, None)
        elif pool not in self._wanted:
            self._held.pop(pool, None)
            await self._store.release(held)
        else:
            asked_at = asyncio.get_running_loop().time()
            renewed = await self._store.renew(held, self._ttl)
            if renewed is None:
                self._drop(pool)
            elif pool in self._held:
                self._held[pool] = (renewed, asked_at + self._ttl.total_seconds())

    def _drop(self, pool: str) -> None:
        if self._held.pop(pool, None) is not None:
            log.warning("lease lost", service=self._service, pool=pool)
            self._on_change(pool)

    async def _release_all(self) -> None:
        held, self._held = self._held, {}
        for lease, _ in held.values():
            try:
                async with asyncio.timeout(1.0):
                    await self._store.release(lease)
            except (StoreError, TimeoutError):
                return
