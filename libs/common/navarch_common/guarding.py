"""Reads the guards from all three places where they are kept, and brings the places that lag behind up to the newest.

The store and the bus are two witnesses: either of them is enough to know, and where neither can be read, everything is
frozen. So it is where the store was away and the bus cannot be read: what was accepted meanwhile the bus alone may know.
The file is the third: it cannot lift what a witness says, but what it has of a higher number counts.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from navarch_common import guards
from navarch_common.bus.base import BusError, KvConflict
from navarch_common.model.base import AnyKey
from navarch_common.model.pool import GUARD, Guard
from navarch_common.store.base import StoreError

if TYPE_CHECKING:
    from navarch_common.run import Deps

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 1.5
"""For one place. A freeze works within two seconds: whoever has read older guards than this must read them again."""
BESIDE_FOR_S = 0.5
"""How long what the bus and the file said is taken for fresh."""
KEEP_EVERY_S = 1.0
TRIES = 8


@dataclass(slots=True)
class StoreWord:
    """What the store's word on guards is worth where the bus cannot be read. All of a process share it."""

    enough: bool = True
    """It has all that was known when both could be read, and was not away since."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the three places say."""

    guards: tuple[Guard, ...] = ()
    """Of each guard the newest."""
    store: Mapping[str, int] | None = None
    """By name, the number that the store has; None where it could not be read."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """By name, the store's revision."""
    bus: tuple[Guard, ...] | None = None
    """None where the bus could not be read."""
    problem: str = ""
    """Why neither could be read."""
    doubt: str = ""
    """Why it is not known what is forbidden, so that everything is: nothing could be read, or not enough."""

    @property
    def readable(self) -> bool:
        return self.store is not None or self.bus is not None


class Guards:
    """The guards, as one process reads them. Cheap; each service may have its own."""

    def __init__(self, deps: "Deps") -> None:
        self._store, self._bus, self._clock, self._file = deps.store, deps.bus, deps.clock, deps.guard_file
        self._word, self._bus_problem = deps.store_word, ""
        self._bucket, self._key = deps.subjects.stream("STATE"), f"guards.{deps.cluster}"
        self._beside: tuple[Guard, ...] = ()
        self._beside_until_s = float("-inf")
        self._written: bytes | None = None

    async def read(self, keys: Sequence[AnyKey] | None = None) -> Reading:
        """All three places, now. With `keys` only these are asked of the store. Raises nothing: see `Reading.readable`."""
        async with asyncio.TaskGroup() as tasks:
            store = tasks.create_task(self._from_store(keys), name="guards/store")
            told = await self._from_bus()
            kept = await self._from_file()
        stored, problem = store.result()
        records = () if stored is None else tuple(stored)
        merged = guards.newest((guard for guard, _ in records), told or (), kept)
        in_store = None if stored is None else {guard.name: guard.number for guard, _ in records}
        if in_store is None:
            self._word.enough = False
        elif told is not None and keys is None:
            self._word.enough = all(in_store.get(guard.name, -1) >= guard.number for guard in merged)
        problem = "" if in_store is not None or told is not None else f"{problem}; {self._bus_problem}"
        if told is not None:
            self._take_beside(guards.newest(told, kept))
        return Reading(
            guards=merged,
            store=in_store,
            revisions={guard.name: revision for guard, revision in records},
            bus=told,
            problem=problem,
            doubt=problem or self.doubt,
        )

    @property
    def doubt(self) -> str:
        """Why the store's word is not enough now; empty where it is, or where the bus was read beside it."""
        if self._word.enough or not self._bus_problem:
            return ""
        return f"the store was away, and {self._bus_problem}: it may know of more"

    async def beside(self) -> tuple[Guard, ...]:
        """What the bus and the file say beside the store: at most half a second old, where the bus answers."""
        if asyncio.get_running_loop().time() >= self._beside_until_s:
            told = await self._from_bus()
            self._take_beside(guards.newest(self._beside if told is None else told, await self._from_file()))
        return self._beside

    def _take_beside(self, said: tuple[Guard, ...]) -> None:
        self._beside = said
        self._beside_until_s = asyncio.get_running_loop().time() + BESIDE_FOR_S

    async def publish(self, fresh: Iterable[Guard]) -> None:
        """Adds `fresh` to what the bus keeps, unless it has newer ones. Raises `BusError`, and `TimeoutError` (unknown)."""
        fresh = tuple(fresh)
        async with asyncio.timeout(READ_TIMEOUT_S):
            for _ in range(TRIES):
                entry = await self._bus.kv_get(self._bucket, self._key)
                known = () if entry is None else _decoded(entry.value, "the bus")
                merged = guards.remembered(guards.newest(known or (), fresh), self._clock.now())
                if known is not None and merged == guards.newest(known):
                    return
                revision = 0 if entry is None else entry.revision
                try:
                    await self._bus.kv_put(self._bucket, self._key, guards.encode(merged), expected_revision=revision)
                except KvConflict:
                    continue
                self._beside_until_s = float("-inf")
                return
        raise KvConflict(f"{self._key} kept changing under {TRIES} tries to write it")

    async def keep(self, reading: Reading | None = None) -> Reading:
        """Brings this process's file up to the newest that can be read."""
        reading = reading or await self.read()
        data = guards.encode(guards.remembered(reading.guards, self._clock.now()))
        if reading.readable and data != self._written and (reading.guards or await self._file.read() is not None):
            await self._file.write(data)
            self._written = data
        return reading

    async def run(self) -> None:
        """Keeps the file, until cancelled."""
        while True:
            await self.keep()
            await asyncio.sleep(KEEP_EVERY_S)

    # --- the three places ---

    async def _from_store(self, keys: Sequence[AnyKey] | None) -> tuple[list[tuple[Guard, int]] | None, str]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                if keys is None:
                    return [(stored.record, stored.revision) for stored in await self._store.records(GUARD)], ""
                found = await self._store.get_many(keys)
                return [(stored.record, stored.revision) for stored in found if stored is not None], ""
        except (StoreError, TimeoutError) as error:
            return None, f"the store cannot be read: {str(error) or 'no answer in time'}"

    async def _from_bus(self) -> tuple[Guard, ...] | None:
        """None where it cannot be read: `_bus_problem` says why."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                entry = await self._bus.kv_get(self._bucket, self._key)
        except (BusError, TimeoutError) as error:
            self._bus_problem = f"the bus cannot be read: {str(error) or 'no answer in time'}"
            return None
        known = () if entry is None else _decoded(entry.value, "the bus")
        self._bus_problem = "" if known is not None else "what the bus keeps of them cannot be read"
        return known

    async def _from_file(self) -> tuple[Guard, ...]:
        data = await self._file.read()
        if data is None:
            return ()
        return _decoded(data, "the file") or ()


def _decoded(data: bytes, where: str) -> tuple[Guard, ...] | None:
    try:
        return guards.decode(data)
    except ValueError as error:
        log.error("guards cannot be read", where=where, error=str(error), data=repr(data[:80]))
        return None
