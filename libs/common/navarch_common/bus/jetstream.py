"""The bus over NATS and JetStream, with nats-py.

Its defaults notice a hung server after minutes and give up reconnecting after a while; the settings here don't. A
connection that the server ended for good (a revoked account, a protocol error) makes every iterator raise, so that the
process stops and its supervisor starts it anew.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import Client, Server
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from navarch_common.bus import nats_api as api
from navarch_common.bus.base import (
    BusError,
    BusMessage,
    BusStatus,
    BusTimeout,
    BusUnavailable,
    Delivery,
    KvEntry,
    NoResponder,
    PubAck,
    StoredMessage,
    StreamRefused,
)
from navarch_common.bus.mailbox import Mailbox
from navarch_common.bus.matching import check_subject, kv_subject
from navarch_common.bus.nats_api import Metadata, call, metadata, translated
from navarch_common.bus.nats_pull import Pages, Puller
from navarch_common.bus.nats_streams import ensure_stream
from navarch_common.events.subjects import StreamSpec

log = structlog.get_logger()

INBOX = "_INBOX."
PING_INTERVAL_S = 3
PINGS_MAX = 2
"""A hung server is given up after three intervals: 9 s."""
CONNECT_TIMEOUT_S = 2
RECONNECT_S = (0.1, 2.0)
ROUND_TRIP_S = 5.0
PONG_PATIENCE_S = 60
EPHEMERAL_S = 30.0
"""A reader's consumer that nobody pulls from disappears after this."""


class JetStreamBus:
    """One connection to NATS. Keeps the promises of `navarch_common.bus.base.Bus`. Made by `JetStreamBus.connect`."""

    def __init__(self, rng: random.Random) -> None:
        self._client = Client()
        self._rng = rng
        self._disconnects = self._dropped = self._errors = 0
        self._closing = False
        self._last_error = ""
        self._replicas = 1
        self._mailboxes: set[Mailbox[Any]] = set()
        self._pullers: set[Puller[Any]] = set()
        self._flushes: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls,
        servers: str,
        *,
        name: str,
        rng: random.Random,
        credentials: Path | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> "JetStreamBus":
        """Connects to one of `servers` (URLs, with commas between). Raises `BusUnavailable` after `timeout_s`."""
        bus = cls(rng)
        urls = [url.strip() for url in servers.split(",") if url.strip()]
        if not urls:
            raise BusUnavailable("no address of a NATS server was given")
        try:
            async with translated("connect"), asyncio.timeout(timeout_s):
                await bus._client.connect(
                    urls,
                    name=name,
                    error_cb=bus._on_error,
                    disconnected_cb=bus._on_disconnect,
                    reconnected_cb=bus._on_reconnect,
                    closed_cb=bus._on_close,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    max_reconnect_attempts=-1,
                    reconnect_to_server_handler=bus._next_server,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_MAX,
                    pending_size=0,
                    user_credentials=None if credentials is None else str(credentials),
                    tls=tls,
                )
        except BusError as error:
            bus._closing = True
            await bus._client.close()
            hosts = ", ".join(url.rpartition("@")[2] for url in urls)
            because = bus._last_error or str(error)
            raise BusUnavailable(f"no connection to NATS at {hosts} within {timeout_s:g} s: {because}") from error
        return bus

    @property
    def status(self) -> BusStatus:
        return BusStatus(self._client.is_connected, self._disconnects, self._dropped, self._errors)

    @property
    def client(self) -> Client:
        """nats-py's own connection, for tools that speak to the server's administration."""
        return self._client

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        check_subject(subject)
        async with translated(subject):
            await self._client.publish(subject, data, headers=dict(headers) if headers else None)

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> BusMessage:
        check_subject(subject)
        answer = await api.ask(self._client, subject, data, timeout_s, dict(headers) if headers else None)
        return _message(answer)

    async def reply(self, message: BusMessage, data: bytes) -> None:
        if not message.reply.startswith(INBOX):
            raise BusError(f"refused to answer to {message.reply!r:.100}: only inboxes get answers")
        async with translated(message.reply):
            await self._client.publish(message.reply, data)

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", pending_max: int = 65_536
    ) -> AsyncIterator[AsyncIterator[BusMessage]]:
        self._check_connected()
        mailbox: Mailbox[BusMessage] = Mailbox(pending_max)

        async def receive(message: Msg) -> None:
            if not mailbox.put(_message(message)):
                self._dropped += 1
                self._errors += 1

        self._mailboxes.add(mailbox)
        async with translated(subject):
            subscription = await self._client.subscribe(subject, queue=queue, cb=receive)
        try:
            await self._round_trip()
            yield mailbox
        finally:
            self._mailboxes.discard(mailbox)
            mailbox.close()
            if not self._client.is_closed:
                with suppress(BusError):
                    async with translated(subject):
                        await subscription.unsubscribe()

    async def ensure_streams(self, specs: Sequence[StreamSpec], *, replicas: int = 1) -> list[str]:
        self._replicas = replicas
        sentences: list[str] = []
        for spec in specs:
            sentences += await ensure_stream(self._client, spec, replicas)
        return sentences

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
        sent = {**(headers or {}), "Nats-Msg-Id": msg_id}
        return await self._store(subject, data, sent, timeout_s)

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
        config = {
            "name": durable,
            "durable_name": durable,
            "filter_subject": filter_subject,
            "ack_policy": "explicit",
            "ack_wait": round(ack_wait_s * 1e9),
            "max_ack_pending": max_ack_pending,
            "max_deliver": -1,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_waiting": 512,
        }

        async def open_consumer() -> str:
            body = {"stream_name": stream, "config": config, "action": ""}
            method = f"CONSUMER.CREATE.{stream}.{durable}.{filter_subject}"
            await call(self._client, method, body, api.ConsumerInfo)
            return f"{stream}.{durable}"

        self._check_connected()
        puller: Puller[Delivery] = Puller(self._client, open_consumer, self._delivery, batch, durable=True)
        async with self._pulling(puller, f"consume {durable}"):
            yield puller.mailbox

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
        self._check_connected()
        start = _start(start_sequence, start_at, last_per_subject=last_per_subject)
        reader = _Reader(self._client, stream, tuple(filter_subjects), start)
        try:
            if follow:
                puller: Puller[StoredMessage] = Puller(self._client, reader.open, reader.convert, 256, durable=False)
                async with self._pulling(puller, f"read {stream}"):
                    yield puller.mailbox
            else:
                yield await reader.pages()
        finally:
            await reader.close()

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        found = await self._last(stream, subject)
        return None if found is None else _found(found)

    async def stream_made_at(self, stream: str) -> datetime:
        return _aware((await call(self._client, f"STREAM.INFO.{stream}", None, api.StreamInfo)).created)

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        found = await self._get(stream, {"seq": sequence})
        return None if found is None else _found(found)

    async def kv_get(self, bucket: str, key: str) -> KvEntry | None:
        try:
            found = await self._last(f"KV_{bucket}", kv_subject(bucket, key))
        except api.ApiRefusal as refusal:
            if refusal.code == api.STREAM_NOT_FOUND:
                return None
            raise
        if found is None or "KV-Operation" in api.parse_headers(found.hdrs):
            return None
        return KvEntry(found.data, found.seq)

    async def kv_put(self, bucket: str, key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        subject = kv_subject(bucket, key)
        headers = {} if expected_revision is None else {"Nats-Expected-Last-Subject-Sequence": str(expected_revision)}
        try:
            return (await self._store(subject, value, headers, 2.0)).sequence
        except StreamRefused as refusal:
            if not isinstance(refusal.__cause__, NoResponder):
                raise
        await self._ensure_bucket(bucket)
        return (await self._store(subject, value, headers, 2.0)).sequence

    async def pending(self, stream: str, durable: str) -> int:
        info = await call(self._client, f"CONSUMER.INFO.{stream}.{durable}", None, api.ConsumerInfo)
        return info.num_pending + info.num_ack_pending

    async def close(self) -> None:
        self._closing = True
        for mailbox in (*self._mailboxes, *(puller.mailbox for puller in self._pullers)):
            mailbox.close()
        for flush in self._flushes:
            flush.cancel()
        with suppress(OSError, NatsError):  # it is closed all the same; a timeout is an OSError
            async with asyncio.timeout(ROUND_TRIP_S):
                await self._client.close()

    @asynccontextmanager
    async def _pulling(self, puller: Puller[Any], name: str) -> AsyncIterator[None]:
        await puller.start()
        self._pullers.add(puller)
        keeper = asyncio.create_task(puller.run(), name=name)
        keeper.add_done_callback(lambda done: puller.mailbox.close(self._failure(done)))
        try:
            yield
        finally:
            self._pullers.discard(puller)
            keeper.cancel()
            await asyncio.wait({keeper}, timeout=ROUND_TRIP_S)
            with suppress(BusError):
                await puller.stop()

    def _failure(self, done: "asyncio.Task[None]") -> Exception | None:
        """What a reader whose keeper has ended is told; None at a close of our own."""
        if done.cancelled() or self._closing:
            return None
        error = done.exception()
        if isinstance(error, Exception):
            return error
        return BusUnavailable(f"the bus closed the connection for good: {self._last_error}")

    async def _store(self, subject: str, data: bytes, headers: dict[str, str], timeout_s: float) -> PubAck:
        try:
            answer = await api.ask(self._client, subject, data, timeout_s, headers)
        except NoResponder as error:
            raise StreamRefused(f"no stream takes {subject}, or it has no leader now") from error
        acked = api.decode(subject, answer.data, api.Acknowledged)
        return PubAck(acked.stream, acked.seq, acked.duplicate)

    async def _last(self, stream: str, subject: str) -> api.RawMessage | None:
        return await self._get(stream, {"last_by_subj": subject})

    async def _get(self, stream: str, body: dict[str, str | int]) -> api.RawMessage | None:
        """From the stream's leader, never from a follower that may be behind."""
        try:
            return (await call(self._client, f"STREAM.MSG.GET.{stream}", body, api.RawMessageAnswer)).message
        except api.ApiRefusal as refusal:
            if refusal.code == api.MESSAGE_NOT_FOUND:
                return None
            raise

    async def _ensure_bucket(self, bucket: str) -> None:
        config = {
            "name": f"KV_{bucket}",
            "subjects": [f"$KV.{bucket}.>"],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self._replicas,
            "max_msgs_per_subject": 1,
            "max_bytes": 64 << 20,
            "max_age": 0,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }
        try:
            await call(self._client, f"STREAM.CREATE.KV_{bucket}", config, api.StreamInfo)
        except api.ApiRefusal as refusal:
            if refusal.code not in api.NO_REPLICAS:
                raise
            alone = {**config, "num_replicas": 1}
            await call(self._client, f"STREAM.CREATE.KV_{bucket}", alone, api.StreamInfo)

    def _delivery(self, message: Msg) -> Delivery:
        return JetStreamDelivery(self._client, message, metadata(message.reply))

    async def _round_trip(self) -> None:
        """Waits until the server has done all that was sent before.

        nats-py's read loop dies when a PONG arrives for a flush that was given up; so a flush goes on in its own task,
        for longer than a PONG can take, and only our waiting for it ends.
        """
        flush = asyncio.create_task(self._flush(), name="flush")
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)
        await asyncio.wait({flush}, timeout=ROUND_TRIP_S)
        if not flush.done():
            raise BusUnavailable(f"the server did not answer within {ROUND_TRIP_S:g} s")

    async def _flush(self) -> None:
        with suppress(BusTimeout, BusUnavailable):
            async with translated("flush"):
                await self._client.flush(PONG_PATIENCE_S)

    def _check_connected(self) -> None:
        if self._client.is_closed:
            raise BusUnavailable("this connection to the bus is closed")
        if not self._client.is_connected:
            raise BusUnavailable("not connected to the bus")

    def _next_server(self, servers: list[Server], _: dict[str, Any]) -> tuple[Server | None, float]:
        """The server that failed least, after a pause that grows and is never the same for all."""
        chosen = min(servers, key=lambda server: (server.reconnects, self._rng.random()))
        first, longest = RECONNECT_S
        pause_s = min(first * 2 ** min(chosen.reconnects, 10), longest)
        return chosen, pause_s * self._rng.uniform(0.5, 1.5)

    async def _on_error(self, error: Exception) -> None:
        self._errors += 1
        if isinstance(error, SlowConsumerError):
            self._dropped += 1
        said = str(error) or type(error).__name__
        if said != self._last_error:
            log.warning("bus reports an error", error=said)
        self._last_error = said

    async def _on_disconnect(self) -> None:
        if not self._closing:
            self._disconnects += 1
            log.warning("connection to the bus lost", error=self._last_error)

    async def _on_reconnect(self) -> None:
        log.info("connected to the bus again")
        self._last_error = ""
        for puller in self._pullers:
            puller.interrupt("reconnected")

    async def _on_close(self) -> None:
        if self._closing:
            return
        log.error("the bus closed the connection for good", error=self._last_error)
        error = BusUnavailable(f"the bus closed the connection for good: {self._last_error}")
        for mailbox in (*self._mailboxes, *(puller.mailbox for puller in self._pullers)):
            mailbox.close(error)


class JetStreamDelivery:
    """Keeps the promises of `navarch_common.bus.base.Delivery`."""

    def __init__(self, client: Client, message: Msg, meta: Metadata) -> None:
        self._client, self._message, self._meta = client, message, meta

    @property
    def subject(self) -> str:
        return self._message.subject

    @property
    def data(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers or {}

    @property
    def sequence(self) -> int:
        return self._meta.stream_sequence

    @property
    def stored_at(self) -> datetime:
        return self._meta.stored_at

    @property
    def deliveries(self) -> int:
        return self._meta.deliveries

    @property
    def pending(self) -> int:
        return self._meta.pending

    async def ack(self) -> None:
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float = 1.0) -> None:
        await self._answer(b'-NAK {"delay": %d}' % round(delay_s * 1e9))

    async def in_progress(self) -> None:
        await self._answer(b"+WPI")

    async def term(self) -> None:
        await self._answer(b"+TERM")

    async def _answer(self, verb: bytes) -> None:
        async with translated("acknowledge"):
            await self._client.publish(self._message.reply, verb)


class _Reader:
    """An ephemeral consumer that reads in order and, where it was interrupted, goes on behind what it has read."""

    def __init__(self, client: Client, stream: str, filters: tuple[str, ...], start: dict[str, Any]) -> None:
        self._client, self._stream, self._filters, self._start = client, stream, filters, start
        self._name = ""
        self._read = 0
        self._expected = 1
        self._end = 0

    async def open(self) -> str:
        await self.close()
        self._name = f"reader-{self._client.new_inbox().rpartition('.')[2]}"
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._read + 1} if self._read else self._start
        config: dict[str, Any] = {
            "name": self._name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": round(EPHEMERAL_S * 1e9),
            "replay_policy": "instant",
            **start,
        }
        if self._filters or start.get("deliver_policy") == "last_per_subject":
            config["filter_subjects"] = list(self._filters) or [">"]
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        await call(self._client, f"CONSUMER.CREATE.{self._stream}.{self._name}", body, api.ConsumerInfo)
        self._expected = 1
        return f"{self._stream}.{self._name}"

    async def pages(self) -> AsyncIterator[StoredMessage]:
        info = await call(self._client, f"STREAM.INFO.{self._stream}", None, api.StreamInfo)
        self._end = info.state.last_seq
        return _until(Pages(self._client, await self.open(), self._convert_page, ROUND_TRIP_S), self._end)

    def convert(self, message: Msg) -> StoredMessage | None:
        """None where the consumer skipped something: the connection was away while it sent."""
        meta = metadata(message.reply)
        if meta.consumer_sequence != self._expected:
            return None
        self._expected += 1
        self._read = meta.stream_sequence
        return _stored(message, meta)

    def _convert_page(self, message: Msg) -> tuple[StoredMessage, bool]:
        meta = metadata(message.reply)
        return _stored(message, meta), meta.pending == 0 or meta.stream_sequence >= self._end

    async def close(self) -> None:
        """Tidies up where that works; else the server forgets the consumer by itself."""
        name, self._name = self._name, ""
        if name and self._client.is_connected:
            with suppress(BusError):
                await call(self._client, f"CONSUMER.DELETE.{self._stream}.{name}", None, dict[str, Any])


async def _until(messages: AsyncIterator[StoredMessage], end: int) -> AsyncIterator[StoredMessage]:
    async for message in messages:
        if message.sequence > end:
            return
        yield message


def _start(start_sequence: int | None, start_at: datetime | None, *, last_per_subject: bool) -> dict[str, Any]:
    if last_per_subject:
        return {"deliver_policy": "last_per_subject"}
    if start_at is not None:
        at = start_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return {"deliver_policy": "by_start_time", "opt_start_time": at}
    if start_sequence is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(start_sequence, 1)}
    return {"deliver_policy": "all"}


def _message(message: Msg) -> BusMessage:
    return BusMessage(message.subject, message.data, message.headers or {}, message.reply)


def _stored(message: Msg, meta: Metadata) -> StoredMessage:
    return StoredMessage(message.subject, message.data, message.headers or {}, meta.stream_sequence, meta.stored_at)


def _found(found: api.RawMessage) -> StoredMessage:
    return StoredMessage(found.subject, found.data, api.parse_headers(found.hdrs), found.seq, _aware(found.time))


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
