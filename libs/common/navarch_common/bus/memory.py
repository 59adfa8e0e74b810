"""The bus in memory: one `MemoryServer`, any number of `MemoryBus` connections to it. Ships with the product.

It is no kinder than the real thing: it copies, redelivers after `ack_wait`, lets a stale acknowledgement remove a
message, ignores the subject when it looks for duplicates, and drops what a slow reader doesn't take. `Faults` makes it
lose messages and replies to order. It makes no thread and no task, and takes time from the event loop and the clock.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from navarch_common.bus.base import (
    BusError,
    BusMessage,
    BusStatus,
    BusTimeout,
    BusUnavailable,
    Delivery,
    KvConflict,
    KvEntry,
    NoResponder,
    PubAck,
    StoredMessage,
    StreamRefused,
)
from navarch_common.bus.mailbox import Mailbox
from navarch_common.bus.matching import check_subject, kv_subject, matches, overlap
from navarch_common.bus.memory_stream import Delivered, MemoryConsumer, MemoryStream, Pull, check_consumer, passes
from navarch_common.clock import Clock, SystemClock
from navarch_common.events.subjects import StreamSpec

MESSAGE_BYTES_MAX = 1_048_576
"""nats-server's own default for any message."""
INBOX = "_INBOX."
KV_TIMEOUT_S = 2.0
"""How long a write of an entry waits for its acknowledgement."""
SUBJECTS_REMEMBERED = 100_000
"""So many subjects are looked up once and not for each message."""


@dataclass(slots=True)
class Faults:
    """What goes wrong. Counts are used up first, then the ratios decide by chance."""

    rng: random.Random = field(default_factory=lambda: random.Random(0))
    lost_replies: int = 0
    """That many durable publishes are stored, and answered by a timeout."""
    lost_publishes: int = 0
    """That many durable publishes are not stored, and answered by a timeout."""
    refused_publishes: int = 0
    """That many durable publishes are refused, as by a full stream."""
    lost_acks: int = 0
    """That many answers to deliveries are lost on their way, and nobody is told."""
    lost_kv_replies: int = 0
    """That many writes of entries are stored, and answered by a timeout."""
    lost_reply_ratio: float = 0.0
    """Of durable publishes and of writes of entries."""
    lost_publish_ratio: float = 0.0
    """The same: these are not stored."""
    lost_ack_ratio: float = 0.0
    dropped_ratio: float = 0.0
    """Of core messages, each subscriber's copy for itself."""
    lost_request_ratio: float = 0.0
    timeout_scale: float = 1.0
    """How much of a timeout a lost answer really takes: 0 where a test runs on a real clock."""

    def lose_reply(self) -> bool:
        return self._take("lost_replies") or self._chance(self.lost_reply_ratio)

    def lose_publish(self) -> bool:
        return self._take("lost_publishes") or self._chance(self.lost_publish_ratio)

    def lose_ack(self) -> bool:
        return self._take("lost_acks") or self._chance(self.lost_ack_ratio)

    def lose_kv_reply(self) -> bool:
        return self._take("lost_kv_replies") or self._chance(self.lost_reply_ratio)

    def lose_kv_put(self) -> bool:
        return self._chance(self.lost_publish_ratio)

    def refuse(self) -> bool:
        return self._take("refused_publishes")

    def drop(self) -> bool:
        return self._chance(self.dropped_ratio)

    def lose_request(self) -> bool:
        return self._chance(self.lost_request_ratio)

    def _take(self, name: str) -> bool:
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0

    def _chance(self, ratio: float) -> bool:
        return ratio > 0 and self.rng.random() < ratio


@dataclass(eq=False, slots=True)
class _Subscription:
    bus: "MemoryBus"
    pattern: str
    queue: str
    mailbox: Mailbox[BusMessage]


class MemoryServer:
    """Everything that a NATS server holds. Its streams outlive `stop` and `start`, as files would."""

    def __init__(self, clock: Clock | None = None, faults: Faults | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.faults = faults or Faults()
        self.streams: dict[str, MemoryStream] = {}
        self.buckets: dict[str, dict[str, KvEntry]] = {}
        self.up = True
        self._connections: list[MemoryBus] = []
        self._subscriptions: list[_Subscription] = []
        self._routes: dict[str, tuple[_Subscription, ...]] = {}
        self._uncovered: dict[str, None] = {}
        """Subjects that no stream covers, of the streams there are."""
        self._inboxes: dict[str, asyncio.Future[BusMessage]] = {}
        self._numbers = count(1)

    def connect(self) -> "MemoryBus":
        """Another connection. One made while the server is down connects when it comes up."""
        bus = MemoryBus(self, next(self._numbers))
        self._connections.append(bus)
        return bus

    def stop(self) -> None:
        """Every connection is lost."""
        self.up = False
        for stream in self.streams.values():
            stream.restarted()
        for bus in self._connections:
            bus.lose_connection()

    def start(self) -> None:
        self.up = True
        for bus in self._connections:
            bus.restore_connection()

    def stream_for(self, subject: str) -> MemoryStream | None:
        if subject in self._uncovered:
            return None
        found = next((stream for stream in self.streams.values() if stream.covers(subject)), None)
        if found is None:
            if len(self._uncovered) > SUBJECTS_REMEMBERED:
                self._uncovered.clear()
            self._uncovered[subject] = None
        return found

    def ensure(self, spec: StreamSpec) -> None:
        """Makes a stream, or has it take on what may change of it. Raises `StreamRefused`."""
        found = self.streams.get(spec.name)
        if found is None or found.spec.subjects != spec.subjects:
            self._uncovered.clear()
        if found is None:
            for other in self.streams.values():
                if any(overlap(a, b) for a in spec.subjects for b in other.spec.subjects):
                    raise StreamRefused(f"{spec.name}: its subjects overlap with those of {other.spec.name}")
            self.streams[spec.name] = MemoryStream(spec, self.clock, self.advise)
        elif found.spec.retention != spec.retention:
            raise StreamRefused(
                f"{spec.name} has retention {found.spec.retention}, which cannot become {spec.retention}"
            )
        else:
            found.reconfigure(spec)

    def stream(self, name: str) -> MemoryStream:
        """Raises `StreamRefused` where there is none."""
        if name not in self.streams:
            raise StreamRefused(f"there is no stream {name}")
        return self.streams[name]

    def add(self, subscription: _Subscription) -> None:
        self._subscriptions.append(subscription)
        self._routes.clear()

    def remove(self, subscription: _Subscription) -> None:
        self._subscriptions.remove(subscription)
        self._routes.clear()

    def forget(self, bus: "MemoryBus") -> None:
        self._connections.remove(bus)

    def listeners(self, subject: str) -> list[_Subscription]:
        """Who hears it now: each subscription without a queue group, and one of each group."""
        routed = self._routes.get(subject)
        if routed is None:
            routed = tuple(found for found in self._subscriptions if matches(found.pattern, subject))
            if len(self._routes) > SUBJECTS_REMEMBERED:
                self._routes.clear()
            self._routes[subject] = routed
        awake = [found for found in routed if found.bus.connected]
        groups = {found.queue for found in awake if found.queue}
        if not groups:
            return awake
        heard = [found for found in awake if not found.queue]
        members = ([found for found in awake if found.queue == group] for group in sorted(groups))
        return [*heard, *(self.faults.rng.choice(group) for group in members)]

    def route(self, message: BusMessage) -> int:
        """Hands a core message to its listeners and returns how many there are."""
        listeners = self.listeners(message.subject)
        for subscription in listeners:
            if not self.faults.drop():
                subscription.bus.receive(subscription, message)
        return len(listeners)

    def publish(self, subject: str, data: bytes, headers: Mapping[str, str], reply: str = "") -> PubAck | None:
        """As the server takes a message: stored where a stream covers the subject, and routed whatever comes of that, so
        that a plain subscriber hears duplicates, and even what the stream refused."""
        stream = self.stream_for(subject)
        try:
            return None if stream is None else stream.append(subject, data, headers)
        finally:
            self.route(BusMessage(subject, bytes(data), dict(headers), reply))

    def advise(self, subject: str, data: bytes) -> None:
        """Says what became of a message: heard by whoever listens, and kept where a stream takes it."""
        self.publish(subject, data, {})

    def open_inbox(self) -> tuple[str, "asyncio.Future[BusMessage]"]:
        subject = f"{INBOX}{next(self._numbers)}"
        self._inboxes[subject] = asyncio.get_running_loop().create_future()
        return subject, self._inboxes[subject]

    def close_inbox(self, subject: str) -> None:
        self._inboxes.pop(subject, None)

    def answer(self, subject: str, data: bytes) -> None:
        waiting = self._inboxes.get(subject)
        if waiting is not None and not waiting.done():
            waiting.set_result(BusMessage(subject, bytes(data)))


class MemoryBus:
    """One connection to a `MemoryServer`. Keeps the promises of `navarch_common.bus.base.Bus`."""

    def __init__(self, server: MemoryServer, number: int) -> None:
        self.number = number
        self._server = server
        self._connected = server.up
        self._closed = False
        self._disconnects = self._dropped = self._errors = 0
        # Dicts where sets would do: who is told first must not depend on where an object lies in memory.
        self._mailboxes: dict[Mailbox[BusMessage], None] = {}
        self._pulls: dict[int, tuple[MemoryConsumer, Pull]] = {}
        self._readers: dict[_Reader, None] = {}

    @property
    def status(self) -> BusStatus:
        return BusStatus(self.connected, self._disconnects, self._dropped, self._errors)

    @property
    def connected(self) -> bool:
        return self._connected and not self._closed

    def lose_connection(self) -> None:
        """As when the network goes: nothing is heard until `restore_connection`."""
        if self.connected:
            self._connected = False
            self._disconnects += 1
            for _, pull in self._pulls.values():
                pull.credit = 0
            for reader in self._readers:
                reader.connection_changed()

    def restore_connection(self) -> None:
        if self._closed or self._connected:
            return
        self._connected = True
        for consumer, pull in self._pulls.values():
            _top_up(consumer, pull)
        for reader in self._readers:
            reader.connection_changed()

    def receive(self, subscription: _Subscription, message: BusMessage) -> None:
        if not subscription.mailbox.put(message):
            self._dropped += 1
            self._errors += 1

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        check_subject(subject)
        self._check(data)
        try:
            self._server.publish(subject, data, headers or {})
        except StreamRefused:
            self._errors += 1  # a plain publish learns of it as little as with a real server

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> BusMessage:
        check_subject(subject)
        self._check(data)
        inbox, answer = self._server.open_inbox()
        try:
            if self._server.faults.lose_request():
                await self._time_out(timeout_s, f"no answer on {subject}")
            if not self._server.route(BusMessage(subject, bytes(data), dict(headers or {}), inbox)):
                raise NoResponder(f"nobody listens on {subject}")
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise BusTimeout(f"no answer on {subject} within {timeout_s} s") from error
        finally:
            self._server.close_inbox(inbox)

    async def reply(self, message: BusMessage, data: bytes) -> None:
        if not message.reply.startswith(INBOX):
            raise BusError(f"refused to answer to {message.reply!r:.100}: only inboxes get answers")
        self._check(data)
        self._server.answer(message.reply, data)

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", pending_max: int = 65_536
    ) -> AsyncIterator[AsyncIterator[BusMessage]]:
        self._check()
        mailbox: Mailbox[BusMessage] = Mailbox(pending_max)
        subscription = _Subscription(self, subject, queue, mailbox)
        self._server.add(subscription)
        self._mailboxes[mailbox] = None
        try:
            yield mailbox
        finally:
            self._server.remove(subscription)
            self._mailboxes.pop(mailbox, None)
            mailbox.close()

    async def ensure_streams(self, specs: Sequence[StreamSpec], *, replicas: int = 1) -> list[str]:
        self._check()
        for spec in specs:
            self._ensure(spec)
        return [] if replicas == 1 else [f"replicas: asked for {replicas}, an in-memory server has one"]

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 2.0,
    ) -> PubAck:
        check_subject(subject)
        self._check(data)
        faults = self._server.faults
        if faults.refuse():
            raise StreamRefused(f"{subject}: maximum bytes exceeded (injected)")
        if faults.lose_publish():
            await self._time_out(timeout_s, f"no acknowledgement for {subject}")
        acked = self._server.publish(subject, data, {**(headers or {}), "Nats-Msg-Id": msg_id})
        if acked is None:
            raise StreamRefused(f"no stream takes {subject}")
        if faults.lose_reply():
            await self._time_out(timeout_s, f"no acknowledgement for {subject}")
        await asyncio.sleep(0)
        return acked

    @asynccontextmanager
    async def consume(
        self,
        stream: str,
        durable: str,
        filter_subject: str,
        *,
        ack_wait_s: float = 30.0,
        max_ack_pending: int = 1024,
        batch: int = 64,
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        self._check()
        held = self._server.stream(stream)
        check_consumer(held, durable, filter_subject)
        consumer = held.consumers.get(durable)
        if consumer is None:
            consumer = MemoryConsumer(held, durable, filter_subject, ack_wait_s, max_ack_pending)
            held.consumers[durable] = consumer
        consumer.filter_subject, consumer.max_deliver = filter_subject, -1
        consumer.ack_wait_s, consumer.max_ack_pending = ack_wait_s, max_ack_pending
        pull = Pull(Mailbox(2 * batch), batch)
        deliveries = _Deliveries(self, consumer, pull)
        consumer.pulls.append(pull)
        self._pulls[id(pull)] = (consumer, pull)
        _top_up(consumer, pull)
        try:
            yield deliveries
        finally:
            consumer.pulls.remove(pull)
            self._pulls.pop(id(pull), None)
            pull.mailbox.close()

    @asynccontextmanager
    async def read(
        self,
        stream: str,
        filter_subjects: Sequence[str] = (),
        *,
        start_sequence: int | None = None,
        start_at: datetime | None = None,
        last_per_subject: bool = False,
        follow: bool = False,
    ) -> AsyncIterator[AsyncIterator[StoredMessage]]:
        self._check()
        held = self._server.stream(stream)
        if held.spec.retention == "work_queue":
            raise StreamRefused(f"{stream} is a work queue: it has no readers but its consumers")
        reader = _Reader(self, held, tuple(filter_subjects), follow=follow)
        reader.begin(start_sequence or 0, start_at, last_per_subject=last_per_subject)
        held.listeners[reader.wake] = None
        self._readers[reader] = None
        try:
            yield reader
        finally:
            held.listeners.pop(reader.wake, None)
            self._readers.pop(reader, None)

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        self._check()
        return self._server.stream(stream).last(subject)

    async def stream_made_at(self, stream: str) -> datetime:
        self._check()
        return self._server.stream(stream).made_at

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        self._check()
        return self._server.stream(stream).get(sequence)

    async def kv_get(self, bucket: str, key: str) -> KvEntry | None:
        kv_subject(bucket, key)
        self._check()
        return self._server.buckets.get(bucket, {}).get(key)

    async def kv_put(self, bucket: str, key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        kv_subject(bucket, key)
        self._check(value)
        if self._server.faults.lose_kv_put():
            await self._time_out(KV_TIMEOUT_S, f"no acknowledgement for {bucket}/{key}")
        entries = self._server.buckets.setdefault(bucket, {})
        found = entries[key].revision if key in entries else 0
        if expected_revision is not None and expected_revision != found:
            raise KvConflict(f"{bucket}/{key} is at revision {found}, expected {expected_revision}")
        revision = 1 + max((entry.revision for entry in entries.values()), default=0)
        entries[key] = KvEntry(bytes(value), revision)
        if self._server.faults.lose_kv_reply():
            await self._time_out(KV_TIMEOUT_S, f"no acknowledgement for {bucket}/{key}")
        return revision

    async def pending(self, stream: str, durable: str) -> int:
        self._check()
        consumer = self._server.stream(stream).consumers.get(durable)
        if consumer is None:
            raise StreamRefused(f"{stream} has no consumer {durable}")
        return consumer.waiting()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._server.forget(self)
        for mailbox in self._mailboxes:
            mailbox.close()
        for _, pull in self._pulls.values():
            pull.credit = 0
            pull.mailbox.close()
        for reader in self._readers:
            reader.connection_changed()

    @property
    def closed(self) -> bool:
        return self._closed

    def sends_answer(self) -> bool:
        """Whether an acknowledgement that is sent now arrives: nobody answers to it. Raises `BusUnavailable`."""
        self._check()
        return not self._server.faults.lose_ack()

    def _check(self, data: bytes = b"") -> None:
        if self._closed:
            raise BusUnavailable("this connection to the bus is closed")
        if not self._connected:
            raise BusUnavailable("not connected to the bus")
        if len(data) > MESSAGE_BYTES_MAX:
            raise BusError(f"{len(data)} bytes, more than the {MESSAGE_BYTES_MAX} that a message may have")

    async def _time_out(self, timeout_s: float, what: str) -> None:
        await asyncio.sleep(timeout_s * self._server.faults.timeout_scale)
        raise BusTimeout(f"{what} within {timeout_s} s")

    def _ensure(self, spec: StreamSpec) -> None:
        if spec.max_age is not None and spec.duplicate_window > spec.max_age:
            raise StreamRefused(f"{spec.name}: its window of ids is longer than its max_age of {spec.max_age}")
        self._server.ensure(spec)


def _top_up(consumer: MemoryConsumer, pull: Pull) -> None:
    """Asks for more once half of a batch is used up."""
    outstanding = pull.credit + len(pull.mailbox)
    if outstanding <= pull.batch // 2:
        pull.credit += pull.batch - outstanding
        consumer.pump()


class _Deliveries:
    """A consumer's messages, as one reader gets them."""

    def __init__(self, bus: MemoryBus, consumer: MemoryConsumer, pull: Pull) -> None:
        self._bus, self._consumer, self._pull = bus, consumer, pull

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        delivered = await anext(self._pull.mailbox)
        if self._bus.connected:
            _top_up(self._consumer, self._pull)
        return MemoryDelivery(self._bus, delivered)


class MemoryDelivery:
    """Keeps the promises of `navarch_common.bus.base.Delivery`."""

    def __init__(self, bus: MemoryBus, delivered: Delivered) -> None:
        self._bus, self._delivered = bus, delivered

    @property
    def subject(self) -> str:
        return self._delivered.message.subject

    @property
    def data(self) -> bytes:
        return self._delivered.message.data

    @property
    def headers(self) -> Mapping[str, str]:
        return dict(self._delivered.message.headers)

    @property
    def sequence(self) -> int:
        return self._delivered.message.sequence

    @property
    def stored_at(self) -> datetime:
        return self._delivered.message.stored_at

    @property
    def deliveries(self) -> int:
        return self._delivered.deliveries

    @property
    def pending(self) -> int:
        return self._delivered.pending

    async def ack(self) -> None:
        if self._bus.sends_answer():
            self._delivered.consumer.ack(self.sequence)

    async def nak(self, delay_s: float = 1.0) -> None:
        if self._bus.sends_answer():
            self._delivered.consumer.nak(self.sequence, delay_s)

    async def in_progress(self) -> None:
        if self._bus.sends_answer():
            self._delivered.consumer.in_progress(self.sequence)

    async def term(self) -> None:
        if self._bus.sends_answer():
            self._delivered.consumer.term(self._delivered)


class _Reader:
    """Reads a stream in order: to the end that it had, or on and on."""

    def __init__(self, bus: MemoryBus, stream: MemoryStream, filters: tuple[str, ...], *, follow: bool) -> None:
        self._bus, self._stream, self._filters, self._follow = bus, stream, filters, follow
        self._first: list[StoredMessage] = []
        self._position = 0
        self._end = stream.last_sequence
        self._changed = asyncio.Event()
        self.wake: Callable[[], None] = self._changed.set

    def begin(self, start_sequence: int, start_at: datetime | None, *, last_per_subject: bool) -> None:
        self._position = max(start_sequence - 1, 0)
        chosen = [
            message
            for message in self._stream.select(self._filters, self._position)
            if start_at is None or message.stored_at >= start_at
        ]
        if last_per_subject:
            chosen = sorted({message.subject: message for message in chosen}.values(), key=lambda found: found.sequence)
        self._first = chosen
        self._position = max(self._position, self._end)

    def connection_changed(self) -> None:
        self._changed.set()

    def __aiter__(self) -> AsyncIterator[StoredMessage]:
        return self

    async def __anext__(self) -> StoredMessage:
        while True:
            if self._bus.closed:
                raise StopAsyncIteration
            if self._bus.connected:
                if self._first:
                    return self._first.pop(0)
                if not self._follow:
                    raise StopAsyncIteration
                if (message := self._next()) is not None:
                    return message
            elif not self._follow:
                raise BusUnavailable(f"the connection was lost while reading {self._stream.spec.name}")
            self._changed.clear()
            await self._changed.wait()

    def _next(self) -> StoredMessage | None:
        while self._position < self._stream.last_sequence:
            self._position += 1
            message = self._stream.get(self._position)
            if message is not None and passes(self._filters, message.subject):
                return message
        return None
