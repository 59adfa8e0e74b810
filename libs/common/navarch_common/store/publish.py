"""Sends outbox entries to the streams of events and of the audit: what committer and relay share."""

import asyncio
from collections.abc import Iterable

from navarch_common.bus.base import Bus, BusTimeout, BusUnavailable, StreamRefused
from navarch_common.events.subjects import Subjects
from navarch_common.store.base import OutboxEntry, StateStore
from navarch_common.store.encoding import headers_of

DUPLICATE_WINDOW_S = 3600.0
"""How long the stream knows the ids of what it has stored. See `Subjects.streams`."""
PUBLISH_TIMEOUT_S = 2.0


class Publisher:
    """Publishes entries one by one, each taken out of the outbox once the stream has stored it."""

    def __init__(self, store: StateStore, bus: Bus, subjects: Subjects) -> None:
        self._store, self._bus, self._subjects = store, bus, subjects

    async def publish(self, entry: OutboxEntry) -> None:
        """Raises `BusError` or `StoreError`: the entry is then in doubt, still waits, and may go out once more."""
        if not self._bus.status.connected:
            raise BusUnavailable(f"not connected: {entry.id} waits in the outbox")
        try:
            async with asyncio.timeout(2 * PUBLISH_TIMEOUT_S):
                ack = await self._bus.publish_durable(
                    entry.subject,
                    entry.data,
                    msg_id=entry.id,
                    headers=headers_of(entry),
                    timeout_s=PUBLISH_TIMEOUT_S,
                )
        except TimeoutError as error:
            raise BusTimeout(f"no word of {entry.id} on {entry.subject} within {2 * PUBLISH_TIMEOUT_S} s") from error
        stream = self._subjects.stream_of(entry.subject)
        if ack.stream != stream:
            raise StreamRefused(f"{entry.subject} went to the stream {ack.stream}, not to {stream}")
        await self._store.outbox_done([entry.id])

    async def settle(self, entry: OutboxEntry) -> bool:
        """As `publish`, for an entry so old that the stream may have forgotten its id: compares with the subject's
        last message first. True when it had to be published. Raises as `publish` does."""
        if entry.age_s <= DUPLICATE_WINDOW_S / 2 or not await self._is_last(entry):
            await self.publish(entry)
            return True
        await self._store.outbox_done([entry.id])
        return False

    async def _is_last(self, entry: OutboxEntry) -> bool:
        try:
            async with asyncio.timeout(2 * PUBLISH_TIMEOUT_S):
                last = await self._bus.last_message(self._subjects.stream_of(entry.subject), entry.subject)
        except TimeoutError as error:
            raise BusTimeout(f"no answer to what {entry.subject} told last") from error
        return last is not None and last.data == entry.data


def of_orders(entries: Iterable[OutboxEntry], orders: frozenset[str]) -> list[OutboxEntry]:
    return [entry for entry in entries if entry.order in orders]
