"""The bus as one process reaches it: a real in-memory connection, with the air between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from navarch_common.bus.base import (
    BusError,
    BusMessage,
    BusStatus,
    BusTimeout,
    BusUnavailable,
    Delivery,
    KvEntry,
    PubAck,
    StoredMessage,
    StreamRefused,
)
from navarch_common.bus.memory import MemoryBus, MemoryServer
from navarch_common.events.subjects import StreamSpec
from navarch_sim.virtual.air import Air, at_once, later

T = TypeVar("T")


class SimBus:
    """Keeps the promises of `navarch_common.bus.base.Bus`, over bad air."""

    def __init__(self, server: MemoryServer, air: Air) -> None:
        self._server, self._air = server, air
        self._inner = server.connect()

    @property
    def inner(self) -> MemoryBus:
        return self._inner

    @property
    def status(self) -> BusStatus:
        return self._inner.status

    def cut(self) -> None:
        """The process is dead: nothing reaches it any more, whatever the server does."""
        self._inner.lose_connection()
        self._server.forget(self._inner)

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        air = self._air
        if air.calm:
            await self._inner.publish(subject, data, headers=headers)
            return
        _check(self._inner)
        if air.strikes(air.loss, "loss"):
            return
        copies = 2 if air.strikes(air.duplication, "duplication") else 1
        for _ in range(copies):
            delay_s = air.travel_s()
            if air.strikes(air.reordering, "reordering"):
                delay_s += air.rng.uniform(0.0, air.held_back_s)
            later(delay_s, self._arrive, subject, bytes(data), dict(headers or {}))

    def _arrive(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        if self._server.up:
            try:
                self._server.publish(subject, data, headers)
            except StreamRefused:
                return

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> BusMessage:
        air = self._air
        if air.strikes(air.loss, "loss"):
            _check(self._inner)
            await asyncio.sleep(timeout_s)
            raise BusTimeout(f"no answer on {subject} within {timeout_s} s")
        await air.pause()
        return await self._inner.request(subject, data, timeout_s=timeout_s, headers=headers)

    async def reply(self, message: BusMessage, data: bytes) -> None:
        if not self._air.strikes(self._air.loss, "loss"):
            await self._inner.reply(message, data)

    def subscribe(
        self, subject: str, *, queue: str = "", pending_max: int = 65_536
    ) -> AbstractAsyncContextManager[AsyncIterator[BusMessage]]:
        return self._inner.subscribe(subject, queue=queue, pending_max=pending_max)

    async def ensure_streams(self, specs: Sequence[StreamSpec], *, replicas: int = 1) -> list[str]:
        await self._air.pause()
        return await self._inner.ensure_streams(specs, replicas=replicas)

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 2.0,
    ) -> PubAck:
        def store() -> PubAck:
            return at_once_acked(self._server, subject, data, {**(headers or {}), "Nats-Msg-Id": msg_id})

        return await self._asked(store, timeout_s, f"no acknowledgement for {subject}")

    async def _asked(self, act: Callable[[], T], timeout_s: float, what: str) -> T:
        """The server does `act`, unless the request is lost; we hear of it, unless the reply is."""
        _check(self._inner)
        air = self._air
        if air.calm:
            result = act()
            await asyncio.sleep(0)
            return result
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            if not self._server.up or not self._inner.connected:
                return
            result: T | None = None
            error: BusError | None = None
            try:
                result = act()
            except BusError as refusal:
                error = refusal
            if not air.strikes(air.lost_reply, "lost-reply"):
                later(air.travel_s(), _answer, answer, result, error)

        if not air.strikes(air.lost_request, "lost-request"):
            later(air.travel_s(), arrive)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise BusTimeout(f"{what} within {timeout_s} s") from error

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
        async with self._inner.consume(
            stream, durable, filter_subject, ack_wait_s=ack_wait_s, max_ack_pending=max_ack_pending, batch=batch
        ) as deliveries:
            yield _Deliveries(self._server, self._inner, self._air, deliveries)

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
        return self._inner.read(
            stream, filter_subjects, start_sequence=start_sequence, start_at=start_at,
            last_per_subject=last_per_subject, follow=follow,
        )  # fmt: skip

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        await self._air.pause()
        return await self._inner.last_message(stream, subject)

    async def stream_made_at(self, stream: str) -> datetime:
        await self._air.pause()
        return await self._inner.stream_made_at(stream)

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        await self._air.pause()
        return await self._inner.message(stream, sequence)

    async def kv_get(self, bucket: str, key: str) -> KvEntry | None:
        await self._air.pause()
        return await self._inner.kv_get(bucket, key)

    async def kv_put(self, bucket: str, key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        def write() -> int:
            return at_once(self._inner.kv_put(bucket, key, value, expected_revision=expected_revision))

        return await self._asked(write, 2.0, f"no answer for {bucket}/{key}")

    async def pending(self, stream: str, durable: str) -> int:
        await self._air.pause()
        return await self._inner.pending(stream, durable)

    async def close(self) -> None:
        await self._inner.close()


def at_once_acked(server: MemoryServer, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
    """What a server does with a durable publish. Raises `StreamRefused`."""
    acked = server.publish(subject, data, headers)
    if acked is None:
        raise StreamRefused(f"no stream takes {subject}")
    return acked


def _answer(answer: "asyncio.Future[T]", result: T | None, error: BusError | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        assert result is not None
        answer.set_result(result)


def _check(bus: MemoryBus) -> None:
    if not bus.connected:
        raise BusUnavailable("not connected to the bus")


class _Deliveries:
    def __init__(self, server: MemoryServer, bus: MemoryBus, air: Air, inner: AsyncIterator[Delivery]) -> None:
        self._server, self._bus, self._air, self._inner = server, bus, air, inner

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        delivery = SimDelivery(self._server, self._bus, self._air, await anext(self._inner))
        for hear in self._air.delivered:
            hear(delivery.subject)
        return delivery


class SimDelivery:
    """A delivery whose acknowledgement may get lost, or come after the message was delivered to another."""

    def __init__(self, server: MemoryServer, bus: MemoryBus, air: Air, inner: Delivery) -> None:
        self._server, self._bus, self._air, self._inner = server, bus, air, inner
        if inner.deliveries > 1:
            air.met("redelivery")

    @property
    def subject(self) -> str:
        return self._inner.subject

    @property
    def data(self) -> bytes:
        return self._inner.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    @property
    def sequence(self) -> int:
        return self._inner.sequence

    @property
    def stored_at(self) -> datetime:
        return self._inner.stored_at

    @property
    def deliveries(self) -> int:
        return self._inner.deliveries

    @property
    def pending(self) -> int:
        return self._inner.pending

    async def ack(self) -> None:
        for hear in self._air.acknowledged:
            hear(self)
        self._send(self._inner.ack)

    async def nak(self, delay_s: float = 1.0) -> None:
        self._send(lambda: self._inner.nak(delay_s))

    async def in_progress(self) -> None:
        self._send(self._inner.in_progress)

    async def term(self) -> None:
        self._send(self._inner.term)

    def _send(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Fire and forget, as acknowledgements are."""
        _check(self._bus)
        air = self._air
        if air.strikes(air.lost_ack, "lost-ack"):
            return
        delay_s = air.travel_s()
        if air.strikes(air.late_ack, "stale-ack"):
            delay_s += air.rng.uniform(0.0, air.ack_late_s)
        if delay_s:
            later(delay_s, self._arrive, act)
        else:
            self._arrive(act)

    def _arrive(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._server.up and self._bus.connected:
            at_once(act())
