"""What the stream of events has been told of nodes, for those who repair what it was not.

The condition that is repaired with it: a record says something that an event should have told of, and neither the stream
nor the outbox has that event. That happens when a server of the bus loses what it had acknowledged, or all of it. The order
matters: first the record, then the outbox (`look`), then the stream. An event of a record that was read before is in one
of the two, since it leaves the outbox only after the stream has it.

An event older than the stream keeps is not missed; but where the stream itself is younger than that, it was lost with the
one before, and everything that still holds is told again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from msgspec import Struct

from navarch_common.bus.base import Bus
from navarch_common.events import BadMessage
from navarch_common.events.base import Event
from navarch_common.events.codec import decode_event
from navarch_common.events.kinds import NodeLaunchFailed, NodePlanned, NodeTerminated
from navarch_common.events.subjects import EVENTS_KEPT, Subjects
from navarch_common.store.base import StateStore

HORIZON = EVENTS_KEPT - timedelta(days=1)
"""What is older than this may have left the stream by itself."""
WAITING_MAX = 1000
"""With more than so many events in the outbox the bus is the trouble: nothing is judged missing."""
CHECKED_FOR = timedelta(minutes=10)
"""An event that was found is looked for again only after this."""
E = TypeVar("E", bound=Event)
_ENDS = (NodeLaunchFailed, NodeTerminated)


class Word(Struct, frozen=True):
    """What matters of an event that was told, whatever release it is of."""

    type: str
    at: datetime
    node: str = ""
    pool: str = ""
    rev: int = 0
    failure_id: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """The outbox and the age of the stream at one moment."""

    waiting: frozenset[str]
    """Nodes of which something waits to be published."""
    made_at: datetime
    """When the stream was made."""

    def should_be_there(self, since: datetime, now: datetime) -> bool:
        """Whether an event of something that holds since `since` must be in the stream."""
        return max(since, self.made_at) > now - HORIZON


class Told:
    """Reads the stream and the outbox for one process."""

    def __init__(self, store: StateStore, bus: Bus, subjects: Subjects) -> None:
        self._store, self._bus, self._subjects = store, bus, subjects
        self._stream = subjects.stream("EVENTS")

    async def look(self) -> Look | None:
        """None while so much waits that nothing can be said. Raises `StoreError`, `BusError`."""
        if await self._store.outbox_length() > WAITING_MAX:
            return None
        waiting = await self._store.outbox(limit=WAITING_MAX)
        nodes = frozenset(entry.order.removeprefix("node/") for entry in waiting if entry.order.startswith("node/"))
        return Look(nodes, await self._bus.stream_made_at(self._stream))

    async def last(self, kind: type[Event], pool: str, node: str) -> Word | None:
        """The last event of one kind about one node. Raises `BusError`."""
        _, _, what = kind.KIND.partition(".")
        return await self._word(self._subjects.events_of(kind="node", what=what, pool=pool, node=node))

    async def last_event(self, kind: type[E], pool: str, node: str) -> E | None:
        """The last event of one kind about one node, whole; None also where it is of a release that tells it otherwise.
        Raises `BusError`."""
        _, _, what = kind.KIND.partition(".")
        subject = self._subjects.events_of(kind="node", what=what, pool=pool, node=node)
        message = await self._bus.last_message(self._stream, subject)
        if message is None:
            return None
        try:
            event = decode_event(message.data)
        except BadMessage:
            return None  # anyone may publish there; what is no event tells nothing
        return event if isinstance(event, kind) and (event.pool, event.node) == (pool, node) else None

    async def last_of_all(self) -> Word | None:
        """The last event about any node. Raises `BusError`."""
        return await self._word(f"{self._subjects.prefix}.events.node.>")

    async def planned(self, since: datetime, until: datetime) -> set[str]:
        """Nodes that were planned between two moments and whose end was not told, so that machines of theirs may be there.
        Raises `BusError`."""
        subjects = [f"{self._subjects.prefix}.events.{kind.KIND}.>" for kind in (NodePlanned, *_ENDS)]
        nodes: set[str] = set()
        async with self._bus.read(self._stream, subjects, start_at=since) as messages:
            async for message in messages:
                if (word := _word_in(message.data)) is None:
                    continue
                if word.type != NodePlanned.__struct_config__.tag:
                    nodes.discard(word.node)
                elif word.at <= until:
                    nodes.add(word.node)
        return nodes

    async def _word(self, subject: str) -> Word | None:
        message = await self._bus.last_message(self._stream, subject)
        return None if message is None else _word_in(message.data)


def _word_in(data: bytes) -> Word | None:
    try:
        return msgspec.json.decode(data, type=Word)
    except (msgspec.DecodeError, RecursionError):
        return None  # anyone may publish there; what is no event tells nothing
