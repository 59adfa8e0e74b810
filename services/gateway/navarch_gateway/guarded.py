"""Changes guards, and keeps the places where they live alike: the store, the bus, and this process's file.

It repairs one condition: that the store or the bus has an older guard than can be read elsewhere, because one of them
was lost, rolled back, or away when the guard was changed. Any one of the two is enough to freeze.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from navarch_api import types as t
from navarch_common.bus.base import BusError
from navarch_common.events.codec import event_id
from navarch_common.guarding import Guards, Reading
from navarch_common.model.base import AnyKey
from navarch_common.model.pool import GUARD, Guard
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, StoreError
from navarch_gateway import guards, views
from navarch_gateway.audits import entry_of
from navarch_gateway.refusal import unavailable

log = structlog.get_logger(__name__)

ATTEMPTS = 8
COMMIT_TIMEOUT_S = 5.0

Decide = Callable[[Sequence[Guard], datetime], Guard]


class Guarded:
    """The one writer of guards."""

    def __init__(self, deps: Deps) -> None:
        self._deps, self._guards = deps, Guards(deps)

    async def change(self, decide: Decide) -> t.GuardAccepted:
        """Makes a guard what `decide` says, given all that are known. Raises `Refused`.

        It is accepted once the store or the bus has it; whichever is away gets it when it is back.
        """
        for _ in range(ATTEMPTS):
            reading = await self._guards.read()
            if not reading.readable:
                raise unavailable("guards-unreadable", f"everything is frozen already: {reading.problem}")
            guard = decide(reading.guards, self._deps.clock.now())
            try:
                revision = await self._commit(reading, guard)
            except Conflict as error:
                log.debug("deciding again", error=str(error))
                continue
            told = await self._tell_bus(guard)
            if revision is None and not told:
                raise unavailable("state-unavailable", "neither the store nor the bus took it; try again")
            await self._guards.keep()
            log.info(
                "guard changed",
                guard=guard.name,
                active=guard.active,
                actor=guard.actor,
                in_store=revision,
                on_bus=told,
            )
            view = views.guard_view(guard)
            return t.GuardAccepted(
                **{name: getattr(view, name) for name in view.__struct_fields__},
                event_id=event_id(revision, 0) if revision else "",
                revision=revision or 0,
            )
        raise unavailable("contended", f"the guards changed {ATTEMPTS} times meanwhile; try again")

    async def _commit(self, reading: Reading, guard: Guard) -> int | None:
        """The revision; None where the store is away, or may not have taken it. Raises `Conflict`.

        Every guard is expected, since the new number is above all of theirs.
        """
        if reading.store is None:
            return None
        expect: dict[AnyKey, int] = {GUARD.key("freeze"): ABSENT, GUARD.key(guard.name): ABSENT}
        expect |= {GUARD.key(name): revision for name, revision in reading.revisions.items()}
        event = guards.event_of(guard, self._deps.cluster)
        before = next((known for known in reading.guards if known.name == guard.name), None)
        entry = entry_of(event, before, guard)
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                with self._deps.telemetry.span("guard", code=event.code, pool=event.pool, node=event.node) as span:
                    commit = Commit(
                        expect=expect, put={GUARD.key(guard.name): guard}, emit=(event, entry), trace=span.traceparent
                    )
                    return await self._deps.committer.commit(commit)
        except Conflict:
            raise
        except (StoreError, TimeoutError) as error:
            log.warning("guard not in the store yet", guard=guard.name, error=str(error))
            return None

    async def _tell_bus(self, guard: Guard) -> bool:
        try:
            await self._guards.publish([guard])
        except (BusError, TimeoutError) as error:
            log.warning("guard not on the bus yet", guard=guard.name, error=str(error))
            return False
        return True

    async def keep(self) -> dict[str, int]:
        """Writes what one place lacks from what another has. Raises `StoreError`, `BusError`, `TimeoutError`."""
        reading = await self._guards.keep()
        restored = 0
        if reading.store is not None:
            restored = await self._restore(reading)
        if reading.bus is not None and set(reading.bus) != set(reading.guards):
            await self._guards.publish(reading.guards)
        return {"guards": len(reading.guards), "restored": restored}

    async def _restore(self, reading: Reading) -> int:
        """The store gets what it lost, or never had, each in a commit that tells of it."""
        assert reading.store is not None
        now, count = self._deps.clock.now(), 0
        for guard in reading.guards:
            if reading.store.get(guard.name, -1) >= guard.number:
                continue
            key = GUARD.key(guard.name)
            event = guards.restored_event(guard, self._deps.cluster, now)
            commit = Commit(
                expect={key: reading.revisions.get(guard.name, ABSENT)},
                put={key: guard},
                emit=(event,) if event else (),
            )
            try:
                async with asyncio.timeout(COMMIT_TIMEOUT_S):
                    await self._deps.committer.commit(commit)
            except Conflict:
                continue  # another copy was quicker
            count += 1
            log.warning("guard restored", guard=guard.name, active=guard.active, number=guard.number)
        return count
