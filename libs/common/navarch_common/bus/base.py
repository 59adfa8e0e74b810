"""The bus: core NATS for what may be lost, JetStream for what may not.

What it promises, and every adapter keeps (`tests/contract/test_bus.py`):

- `publish` is fire and forget: at most once, and while disconnected it raises `BusUnavailable` instead of hoarding.
- `publish_durable` returns when the message is stored. A timeout is *unknown*, never *failed*: the message may be
  stored; publish it again under the same `msg_id`.
- A consumed message comes again, after `ack_wait` or a `nak`, until it is acknowledged. An acknowledgement is no proof
  of ownership: a stale one removes the message from under its new holder. Acknowledge only when durable state says
  that the effect is done, or who will finish it.
- Iterators end when the bus is closed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from navarch_common.errors import NavarchError
from navarch_common.events.subjects import StreamSpec


class BusError(NavarchError):
    """The root of the bus's errors."""


class BusUnavailable(BusError):
    """Not connected, or the server does not answer: try again later."""


class BusTimeout(BusError):
    """No answer in time. The outcome is unknown."""


class NoResponder(BusError):
    """Nobody listens on the subject of a request."""


class StreamRefused(BusError):
    """The server refused: the stream is full, missing, or configured otherwise."""


class KvConflict(BusError):
    """The entry is not at the expected revision."""


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message as it arrived."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""


class Delivery(Protocol):
    """A message from a stream, to be acknowledged."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def sequence(self) -> int:
        """Its place in the stream, from 1."""
        ...

    @property
    def stored_at(self) -> datetime: ...
    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included."""
        ...

    @property
    def pending(self) -> int:
        """How many messages wait behind it."""
        ...

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float = 1.0) -> None:
        """Gives it back, to come again after `delay_s`."""
        ...

    async def in_progress(self) -> None:
        """Asks for another `ack_wait`."""
        ...

    async def term(self) -> None:
        """Never deliver it again. For poison, after it has been published to the dead-letter stream."""
        ...


@dataclass(frozen=True, slots=True)
class PubAck:
    stream: str
    sequence: int
    duplicate: bool
    """The same `msg_id` was stored before, within the stream's window."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class KvEntry:
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class BusStatus:
    """What an observer must know of its own hearing. Counters rise for the life of the process."""

    connected: bool
    disconnects: int
    """Times that the connection was lost."""
    dropped: int
    """Messages dropped because a subscriber here was too slow."""
    errors: int
    """Errors that only the error callback saw: permissions, slow consumers, protocol."""


class Bus(Protocol):
    """One connection to the bus."""

    @property
    def status(self) -> BusStatus: ...

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """At most once. Raises `BusUnavailable` while disconnected."""
        ...

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> BusMessage:
        """Asks and waits for one answer. Raises `NoResponder`, `BusTimeout`, `BusUnavailable`."""
        ...

    async def reply(self, message: BusMessage, data: bytes) -> None:
        """Answers a request. Only to an inbox: any other reply subject is refused with `BusError`."""
        ...

    def subscribe(
        self, subject: str, *, queue: str = "", pending_max: int = 65_536
    ) -> AbstractAsyncContextManager[AsyncIterator[BusMessage]]:
        """Core subscription; from the moment the context is entered nothing is missed but by slowness, which is counted."""
        ...

    async def ensure_streams(self, specs: Sequence[StreamSpec], *, replicas: int = 1) -> list[str]:
        """Creates what is missing, widens what differs, and returns a sentence for each thing weaker than asked.

        Raises `StreamRefused` where a stream exists and cannot be what is asked.
        """
        ...

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 2.0,
    ) -> PubAck:
        """Stores a message. Raises `BusTimeout` (unknown!), `BusUnavailable`, `StreamRefused`."""
        ...

    def consume(
        self,
        stream: str,
        durable: str,
        filter_subject: str,
        *,
        ack_wait_s: float = 30.0,
        max_ack_pending: int = 1024,
        batch: int = 64,
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Pulls from a durable consumer that all copies share; made where missing. One request outstanding, topped up
        at half. Survives reconnects. Never short fetches."""
        ...

    def read(
        self,
        stream: str,
        filter_subjects: Sequence[str] = (),
        *,
        start_sequence: int | None = None,
        start_at: datetime | None = None,
        last_per_subject: bool = False,
        follow: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredMessage]]:
        """Reads a stream in order, without acknowledgement; ends at what was its end when it began, or follows it. Raises
        `StreamRefused` for a work queue, which has no readers but its consumers."""
        ...

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject, which may have wildcards."""
        ...

    async def stream_made_at(self, stream: str) -> datetime:
        """When a stream was made: what was published before is not in it. Raises `StreamRefused` where there is none."""
        ...

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        """One message of a stream, a work queue's too; None where it is gone."""
        ...

    async def kv_get(self, bucket: str, key: str) -> KvEntry | None: ...

    async def kv_put(self, bucket: str, key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        """Writes an entry and returns its revision. `expected_revision` 0: only if absent. Raises `KvConflict`."""
        ...

    async def pending(self, stream: str, durable: str) -> int:
        """Messages that wait for the consumer, delivered but not acknowledged ones included."""
        ...

    async def close(self) -> None: ...
