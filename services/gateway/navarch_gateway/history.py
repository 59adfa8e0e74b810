"""Reads the events' stream: what happened lately, or everything from some place on as it happens."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from navarch_api import types as t
from navarch_api.types import EventItem
from navarch_common.bus.base import Bus, BusError, StoredMessage
from navarch_common.clock import Clock
from navarch_common.events.base import Event
from navarch_common.events.codec import BadMessage, decode_event
from navarch_common.events.subjects import Subjects
from navarch_common.store.encoding import to_us
from navarch_gateway.asks import AuditQuery, EventQuery
from navarch_gateway.audits import entries
from navarch_gateway.refusal import unavailable

log = structlog.get_logger(__name__)

READ_MAX = 100_000
"""Events looked at for one answer."""
READ_TIMEOUT_S = 5.0
_WINDOWS = (timedelta(hours=1), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Past:
    """What was read. `complete` False: there was more, or the stream could not be read to its end in time."""

    messages: tuple[StoredMessage, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the stream a follower begins, in terms that another gateway understands too."""

    after: int | None
    """Behind this sequence; None where it begins at `since`."""
    since: datetime | None
    stream: str
    """Which stream the sequence is of: when it was made."""


def filters_of(subjects: Subjects, query: EventQuery) -> tuple[str, ...]:
    """The subjects that hold what the query asks for. None of them covers what another does."""
    stem = f"{subjects.prefix}.events.{query.kind or '*'}.{query.what or '*'}"
    if query.node:
        return (f"{stem}.{query.pool or '*'}.{query.node}",)
    if query.pool:
        return (f"{stem}.{query.pool}", f"{stem}.{query.pool}.*")
    if query.kind or query.what:
        return (f"{stem}.>",)
    return (subjects.events,)


class History:
    """The events' stream, for readers."""

    def __init__(self, bus: Bus, subjects: Subjects, clock: Clock) -> None:
        self._bus, self._subjects, self._clock = bus, subjects, clock
        self._stream = subjects.stream("EVENTS")

    async def past(self, query: EventQuery, limit: int) -> Past:
        """The newest `limit` events that match, oldest first. Raises `Refused` where the stream does not answer in time.

        Without `since` it looks ever further back until it has enough: the stream may hold a week of a large fleet.
        """
        filters = filters_of(self._subjects, query)
        if query.since is not None:
            return await self._collect(filters, query.since, limit)
        for window in _WINDOWS:
            past = await self._collect(filters, self._clock.now() - window, limit)
            if len(past.messages) >= limit or not past.complete:
                return Past(past.messages, complete=False)
        return await self._collect(filters, None, limit)

    async def audit(self, query: AuditQuery, limit: int) -> t.AuditList:
        """The newest `limit` entries that match, oldest first. Raises `Refused` where the stream does not answer in time."""
        now = self._clock.now()
        filters = (self._subjects.audits(query.actor, query.action),)
        stream = self._subjects.stream("AUDIT")
        starts = (query.since,) if query.since is not None else (*(now - window for window in _WINDOWS), None)
        found: list[t.AuditEntry] = []
        complete = True
        for start in starts:
            past = await self._collect(filters, start, READ_MAX, stream)
            found = entries(past.messages, actor=query.actor, node=query.node, pool=query.pool)
            complete = past.complete
            if len(found) > limit or not complete:
                break
        return t.AuditList(items=tuple(found[-limit:]), truncated=len(found) > limit or not complete, as_of=now)

    async def events_of(self, filters: Iterable[str], since: datetime | None, limit: int) -> tuple[list[Event], bool]:
        """Decoded events; those of a later release are left out. The stream not answering is an incomplete answer."""
        try:
            past = await self._collect(tuple(filters), since, limit)
        except BusError as error:
            log.warning("events could not be read", error=str(error))
            return [], False
        events = [event for message in past.messages if (event := _decoded(message)) is not None]
        return events, past.complete

    async def _collect(self, filters: tuple[str, ...], since: datetime | None, limit: int, stream: str = "") -> Past:
        kept: deque[StoredMessage] = deque(maxlen=limit)
        count = 0
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT_S),
                self._bus.read(stream or self._stream, filters, start_at=since) as messages,
            ):
                async for message in messages:
                    kept.append(message)
                    count += 1
                    if count >= READ_MAX:
                        return Past(tuple(kept), complete=False)
        except TimeoutError:
            if not kept:
                raise unavailable("bus-unavailable", f"the stream did not answer in {READ_TIMEOUT_S:g} s") from None
            return Past(tuple(kept), complete=False)
        return Past(tuple(kept), complete=count <= limit)

    async def place(self, query: EventQuery, after: int | None, stream: str = "") -> Place:
        """Where a follower begins: behind `after`, at `query.since`, or behind what is there now. `stream` is what an earlier
        place said: where the stream has been made anew since, everything that is in it is new."""
        made_at = str(to_us(await self._bus.stream_made_at(self._stream)))
        if after is None and query.since is not None:
            return Place(None, query.since, made_at)
        last = await self._bus.last_message(self._stream, self._subjects.events)
        end = last.sequence if last is not None else 0
        if after is None:
            return Place(end, None, made_at)
        another = stream != made_at if stream else after > end
        return Place(0 if another else after, None, made_at)

    @asynccontextmanager
    async def follow(self, query: EventQuery, place: Place) -> AsyncIterator[AsyncIterator[StoredMessage]]:
        """Events from `place` on, for ever."""
        filters = filters_of(self._subjects, query)
        start = None if place.after is None else place.after + 1
        async with self._bus.read(
            self._stream, filters, start_sequence=start, start_at=place.since, follow=True
        ) as messages:
            yield messages


def as_line(message: StoredMessage) -> bytes | None:
    """The event as it was sent, with its sequence, in one line; None for what has not the fields that all events have.

    Anyone can publish to the events' subjects: what cannot be read by a client must not reach one. An event of a later
    release, of a type unknown here, does.
    """
    try:
        fields = msgspec.json.decode(message.data, type=dict[str, Any])
        EventItem.of(fields)
        fields["sequence"] = message.sequence
        return msgspec.json.encode(fields)
    except (msgspec.DecodeError, RecursionError, UnicodeError, OverflowError):
        return None


def _decoded(message: StoredMessage) -> Event | None:
    try:
        return decode_event(message.data)
    except BadMessage:
        return None
