"""Streams and durable consumers of the in-memory bus, with the habits of the real ones, the bad ones included."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime

from navarch_common.bus.base import PubAck, StoredMessage, StreamRefused
from navarch_common.bus.mailbox import Mailbox
from navarch_common.bus.matching import matches, overlap
from navarch_common.clock import Clock
from navarch_common.events.subjects import StreamSpec

_SERVER = Context()
"""What a server does later belongs to none of its clients, whoever asked for it."""
ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER"
"""Where a server says what it did to a message; plain messages, lost where nobody listens."""


class MemoryStream:
    """One stream: messages by sequence, a window of message ids, and its consumers."""

    def __init__(self, spec: StreamSpec, clock: Clock, advise: Callable[[str, bytes], None]) -> None:
        """`advise` is called with the subject and the content of each advisory."""
        self.spec = spec
        self.advise = advise
        self.last_sequence = 0
        self.bytes = 0
        self.consumers: dict[str, MemoryConsumer] = {}
        self.listeners: dict[Callable[[], None], None] = {}
        """Told of each message, in the order in which they came."""
        self.made_at = clock.now()
        self._clock = clock
        self._messages: dict[int, StoredMessage] = {}
        self._last: dict[str, int] = {}
        self._in_order: deque[int] = deque()
        """Sequences, oldest first; some may have been removed."""
        self._ids: dict[str, int] = {}
        self._ids_in_order: deque[tuple[datetime, str]] = deque()

    def covers(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def append(self, subject: str, data: bytes, headers: Mapping[str, str]) -> PubAck:
        """Stores a message. An id seen within the window is acknowledged as a duplicate, whatever subject or content it
        came with before. Raises `StreamRefused` where the message is too large, or the stream full and not to forget."""
        now = self._clock.now()
        self._forget_ids(now)
        message_id = headers.get("Nats-Msg-Id", "")
        if message_id in self._ids:
            return PubAck(self.spec.name, self._ids[message_id], duplicate=True)
        size = len(data)
        if size > self.spec.max_message_bytes:
            raise StreamRefused(f"{self.spec.name}: {size} bytes, more than {self.spec.max_message_bytes} allowed")
        if self.spec.discard_new and self.bytes + size > self.spec.max_bytes:
            raise StreamRefused(f"{self.spec.name}: maximum bytes exceeded ({self.bytes} of {self.spec.max_bytes})")
        self.last_sequence += 1
        message = StoredMessage(subject, bytes(data), dict(headers), self.last_sequence, now)
        self._messages[message.sequence] = message
        self._in_order.append(message.sequence)
        self.bytes += size
        if message_id:
            self._ids[message_id] = message.sequence
            self._ids_in_order.append((now, message_id))
        if self.spec.last_per_subject and subject in self._last:
            self.remove(self._last[subject])
        self._last[subject] = message.sequence
        self._enforce_limits(now)
        for notify in (*self.listeners, *(consumer.pump for consumer in self.consumers.values())):
            notify()
        return PubAck(self.spec.name, message.sequence, duplicate=False)

    def get(self, sequence: int) -> StoredMessage | None:
        """The message, unless it was removed or has grown too old."""
        self._enforce_limits(self._clock.now())
        return self._messages.get(sequence)

    def remove(self, sequence: int) -> None:
        message = self._messages.pop(sequence, None)
        if message is not None:
            self.bytes -= len(message.data)
            if self._last.get(message.subject) == sequence:
                del self._last[message.subject]

    def purge(self) -> int:
        """Removes every message, those that are out with a reader too, and returns how many. Their ids stay known: what
        is published again under one of them is acknowledged, and not stored."""
        purged = list(self._messages)
        for sequence in purged:
            self.remove(sequence)
        self._in_order.clear()
        for consumer in self.consumers.values():
            consumer.forget()
        return len(purged)

    def last(self, subject: str) -> StoredMessage | None:
        """`subject` may have wildcards."""
        self._enforce_limits(self._clock.now())
        if "*" in subject or ">" in subject:
            newest = (self._messages[sequence] for sequence in reversed(self._in_order) if sequence in self._messages)
            return next((message for message in newest if matches(subject, message.subject)), None)
        sequence = self._last.get(subject)
        return None if sequence is None else self._messages.get(sequence)

    def select(self, filters: Sequence[str], after: int) -> Iterator[StoredMessage]:
        """Messages after a sequence, in order, that pass a filter."""
        self._enforce_limits(self._clock.now())
        for sequence, message in list(self._messages.items()):
            if sequence > after and passes(filters, message.subject):
                yield message

    def reconfigure(self, spec: StreamSpec) -> None:
        self.spec = spec
        self._enforce_limits(self._clock.now())

    def restarted(self) -> None:
        """Ids are read from the messages that are kept: of those that were acknowledged away none is known any more."""
        self._ids = {message_id: sequence for message_id, sequence in self._ids.items() if sequence in self._messages}
        self._ids_in_order = deque(entry for entry in self._ids_in_order if entry[1] in self._ids)

    def _forget_ids(self, now: datetime) -> None:
        horizon = now - self.spec.duplicate_window
        while self._ids_in_order and self._ids_in_order[0][0] < horizon:
            del self._ids[self._ids_in_order.popleft()[1]]

    def _enforce_limits(self, now: datetime) -> None:
        while self._in_order:
            oldest = self._messages.get(self._in_order[0])
            if oldest is not None:
                too_old = self.spec.max_age is not None and oldest.stored_at < now - self.spec.max_age
                if not too_old and self.bytes <= self.spec.max_bytes:
                    return
                self.remove(oldest.sequence)
            self._in_order.popleft()


def passes(filters: Sequence[str], subject: str) -> bool:
    return not filters or any(matches(pattern, subject) for pattern in filters)


@dataclass(slots=True)
class Pull:
    """One reader of a consumer: how many messages it has asked for and not yet been sent."""

    mailbox: "Mailbox[Delivered]"
    batch: int
    credit: int = 0


@dataclass(slots=True)
class Delivered:
    """One delivery of one message: which consumer it came from, and how often it was delivered by then."""

    consumer: "MemoryConsumer"
    message: StoredMessage
    deliveries: int
    pending: int


@dataclass(slots=True)
class _Outstanding:
    deliveries: int = 0
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class MemoryConsumer:
    """A durable consumer: explicit acknowledgement, shared by all its readers in turn."""

    stream: MemoryStream
    durable: str
    filter_subject: str
    ack_wait_s: float
    max_ack_pending: int
    max_deliver: int = -1
    """After so many deliveries a message comes no more, though it stays in the stream; -1: it comes until acknowledged."""
    position: int = 0
    """The last sequence that was delivered for the first time."""
    pulls: deque[Pull] = field(default_factory=deque)
    outstanding: dict[int, _Outstanding] = field(default_factory=dict)
    again: set[int] = field(default_factory=set)
    """Delivered before, and due once more."""

    def pump(self) -> None:
        """Sends what may be sent to readers that asked."""
        while pull := self._next_pull():
            message = self._next_message()
            if message is None:
                return
            self._deliver(message, pull)

    def ack(self, sequence: int) -> None:
        """Done, whoever says so: an acknowledgement from an earlier delivery counts too."""
        self._release(sequence)
        if self.stream.spec.retention == "work_queue":
            self.stream.remove(sequence)
        self.pump()

    def term(self, delivered: Delivered) -> None:
        """Never again, and an advisory says so, also where it had been ended before."""
        self._advise("MSG_TERMINATED", "terminated", delivered.message.sequence, delivered.deliveries)
        self.ack(delivered.message.sequence)

    def forget(self) -> None:
        """Everything that was out is gone."""
        for sequence in list(self.outstanding):
            self._release(sequence)
        self.position = self.stream.last_sequence

    def nak(self, sequence: int, delay_s: float) -> None:
        self._rearm(sequence, delay_s)

    def in_progress(self, sequence: int) -> None:
        self._rearm(sequence, self.ack_wait_s)

    def waiting(self) -> int:
        """Messages not acknowledged, those not yet delivered included."""
        return len(self.outstanding) + self._undelivered()

    def _undelivered(self) -> int:
        return sum(1 for _ in self.stream.select((self.filter_subject,), self.position))

    def _next_pull(self) -> Pull | None:
        for _ in range(len(self.pulls)):
            self.pulls.rotate(-1)
            if self.pulls[0].credit > 0:
                return self.pulls[0]
        return None

    def _next_message(self) -> StoredMessage | None:
        for sequence in sorted(self.again):
            self.again.discard(sequence)
            message = self.stream.get(sequence)
            if message is not None:
                return message
            self._release(sequence)
        if len(self.outstanding) >= self.max_ack_pending:
            return None
        while self.position < self.stream.last_sequence:
            self.position += 1
            message = self.stream.get(self.position)
            if message is not None and matches(self.filter_subject, message.subject):
                return message
        return None

    def _deliver(self, message: StoredMessage, pull: Pull) -> None:
        entry = self.outstanding.setdefault(message.sequence, _Outstanding())
        entry.deliveries += 1
        pull.credit -= 1
        self._rearm(message.sequence, self.ack_wait_s)
        pull.mailbox.put(Delivered(self, message, entry.deliveries, self._undelivered_quickly()))

    def _undelivered_quickly(self) -> int:
        """Exact where the filter covers the stream, else an upper bound: counting each time would be quadratic."""
        return self.stream.last_sequence - self.position

    def _rearm(self, sequence: int, delay_s: float) -> None:
        entry = self.outstanding.get(sequence)
        if entry is None:
            return
        self.again.discard(sequence)
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = asyncio.get_running_loop().call_later(delay_s, self._come_again, sequence, context=_SERVER)

    def _come_again(self, sequence: int) -> None:
        entry = self.outstanding.get(sequence)
        if entry is None:
            return
        if 0 < self.max_deliver <= entry.deliveries:
            self._release(sequence)
            self._advise("MAX_DELIVERIES", "max_deliver", sequence, entry.deliveries)
        else:
            self.again.add(sequence)
        self.pump()

    def _advise(self, subject: str, kind: str, sequence: int, deliveries: int) -> None:
        said = {
            "type": f"io.nats.jetstream.advisory.v1.{kind}",
            "stream": self.stream.spec.name,
            "consumer": self.durable,
            "stream_seq": sequence,
            "deliveries": deliveries,
        }
        self.stream.advise(f"{ADVISORY}.{subject}.{said['stream']}.{self.durable}", json.dumps(said).encode())

    def _release(self, sequence: int) -> None:
        self.again.discard(sequence)
        entry = self.outstanding.pop(sequence, None)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()


def check_consumer(stream: MemoryStream, durable: str, filter_subject: str) -> None:
    """Raises `StreamRefused` where a work queue would hand a message to two consumers."""
    if stream.spec.retention != "work_queue":
        return
    for other in stream.consumers.values():
        if other.durable != durable and overlap(other.filter_subject, filter_subject):
            raise StreamRefused(
                f"{stream.spec.name} is a work queue: {durable} ({filter_subject}) would overlap with "
                f"{other.durable} ({other.filter_subject})"
            )
