"""What must outlive the store: single values in the bus's bucket `NAVARCH_STATE` that only rise.

Whoever changes such a value writes it here before it counts; whoever finds the store without it takes it from here. Of two
writers the one with the newer value wins, in whatever order they come.
"""

import zlib
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from navarch_common.bus.base import Bus, BusTimeout, KvConflict
from navarch_common.events.subjects import Subjects
from navarch_common.store.base import StoreError

M = TypeVar("M", bound=Struct)

TRIES = 10
"""How often writers may get in each other's way."""
PLAIN_BYTES_MAX = 512 << 10
"""A larger value is packed: the bus takes messages of 1 MiB."""


class MirrorUnreadable(StoreError):
    """What the bus remembers makes no sense."""


class KvMirror(Generic[M]):
    """One value, under `key` in the bucket `NAVARCH_STATE`."""

    def __init__(self, bus: Bus, subjects: Subjects, key: str, kind: type[M], newer: Callable[[M, M], bool]) -> None:
        """`newer` says whether its first value is newer than its second."""
        self._bus, self._bucket, self._key, self._kind = bus, subjects.stream("STATE"), key, kind
        self._newer = newer

    async def read(self) -> tuple[M | None, int]:
        """The value with its revision; None with 0 where there is none. Raises `BusError`, and `MirrorUnreadable`."""
        entry = await self._bus.kv_get(self._bucket, self._key)
        return (None, 0) if entry is None else (self._decoded(entry.value), entry.revision)

    async def write(self, value: M, revision: int) -> None:
        """Writes over that revision. Raises `KvConflict` where it is another one now, and `BusError`."""
        data = msgspec.json.encode(value)
        if len(data) > PLAIN_BYTES_MAX:
            data = zlib.compress(data)
        await self._bus.kv_put(self._bucket, self._key, data, expected_revision=revision)

    async def raise_to(self, value: M) -> M:
        """Writes `value` unless what is there is at least as new, and returns what is there afterwards. A write whose reply
        was lost is looked for. Raises `BusError`, `StoreError`."""
        for _ in range(TRIES):
            found, revision = await self.read()
            if found is not None and not self._newer(value, found):
                return found
            try:
                await self.write(value, revision)
            except (KvConflict, BusTimeout):
                continue  # of writers in each other's way one has written: each round there are fewer
            return value
        raise BusTimeout(
            f"{self._bucket}/{self._key} kept changing, or did not answer, under {TRIES} tries to write it"
        )

    def _decoded(self, value: bytes) -> M:
        try:
            plain = value if value[:1] == b"{" else zlib.decompress(value)
            return msgspec.json.decode(plain, type=self._kind)
        except (msgspec.DecodeError, UnicodeDecodeError, zlib.error) as error:
            raise MirrorUnreadable(
                f"{self._bucket}/{self._key} on the bus is unreadable: {error} in {value[:80]!r}"
            ) from error
