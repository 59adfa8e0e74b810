"""Pulling from a JetStream consumer: one request outstanding, topped up at half, with idle heartbeats.

Short fetches lose latency and, in nats-py, their cancellation once the connection has closed; so a reader here has its
own inbox, and a keeper task that asks for more, notices silence, and starts again after a reconnect.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from navarch_common.bus.base import BusError, BusUnavailable
from navarch_common.bus.mailbox import Mailbox
from navarch_common.bus.nats_api import API, translated

T = TypeVar("T")
log = structlog.get_logger()

HEARTBEAT_S = 2.0
SILENCE_S = 5.0
"""Two heartbeats and a half: then the request is taken for lost."""
ELECTION_S = 10.0
"""A durable consumer that lost its leader has another by then. Until then it is only asked for messages: to ask for the
consumer itself costs a whole timeout while nobody leads it."""
READ_S = 0.2
"""So long after a silence what has arrived is read."""
EXPIRES_S = 30.0
RETRY_S = (0.2, 1.0)
"""First and longest pause before a consumer that went wrong is asked again: a new leader is found once there is one."""
ASK_AGAIN_S = 0.1
"""Pause before a page is asked for again, while the consumer has no leader."""
_IDLE, _NO_MESSAGES, _EXPIRED, _NO_RESPONDER = "100", "404", "408", "503"


def pull_request(batch: int, *, wait: bool = True) -> bytes:
    if not wait:
        return msgspec.json.encode({"batch": batch, "no_wait": True})
    nanoseconds = 1_000_000_000
    return msgspec.json.encode(
        {"batch": batch, "expires": int(EXPIRES_S * nanoseconds), "idle_heartbeat": int(HEARTBEAT_S * nanoseconds)}
    )


def status_of(message: Msg) -> str:
    """A message without an acknowledgement subject is the server's word on the request."""
    return (message.headers or {}).get("Status", "") if not message.reply else ""


class Puller(Generic[T]):
    """Feeds a mailbox from a consumer, for as long as its task runs."""

    def __init__(
        self,
        client: Client,
        open_consumer: Callable[[], Awaitable[str]],
        convert: Callable[[Msg], T | None],
        batch: int,
        *,
        durable: bool,
    ) -> None:
        """`open_consumer` makes sure that the consumer exists and returns `<stream>.<consumer>`; `convert` turns a
        message into an item, or returns None where the consumer must be opened again. `durable`: it outlives its leader."""
        self.mailbox: Mailbox[T] = Mailbox(2 * batch, self._taken)
        self._client, self._open, self._convert, self._batch = client, open_consumer, convert, batch
        self._durable = durable
        self._asked = 0
        self._consumer = ""
        self._heard_at = 0.0
        self._lost_at: float | None = None
        """Since when nothing is heard of a consumer that is there for all we know."""
        self._wake = asyncio.Event()
        self._broken = ""
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Opens the consumer and asks for the first batch. Raises `BusError`."""
        now = asyncio.get_running_loop().time()
        if not self._durable or self._lost_at is None or now - self._lost_at > ELECTION_S:
            self._consumer, self._lost_at = await self._open(), None
        self._asked, self._broken = 0, ""
        self._heard_at = asyncio.get_running_loop().time()
        self._inbox = self._client.new_inbox()
        async with translated(self._consumer):
            self._subscription = await self._client.subscribe(self._inbox, cb=self._receive)
        await self._pull()

    async def run(self) -> None:
        """Keeps it going until it is cancelled or the connection is closed; its mailbox is the caller's to close."""
        pause_s = RETRY_S[0]
        while not self._client.is_closed:
            began = asyncio.get_running_loop().time()
            await self._keep()
            await self.stop()
            if asyncio.get_running_loop().time() - began > SILENCE_S:
                pause_s = RETRY_S[0]
            await self._rest(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])
            try:
                await self.start()
            except BusError as error:
                self._broken = str(error)

    def interrupt(self, why: str, *, gone: bool = False) -> None:
        """The request is known to be lost: ask anew. `gone`: of a consumer that must be opened again."""
        if gone:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
        self._broken = why
        self._wake.set()

    async def stop(self) -> None:
        """Hears no more. A request still open ends at the server, which sees that nobody listens."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            async with translated("unsubscribe"):
                await subscription.unsubscribe()

    async def _keep(self) -> None:
        """Tops up until something is wrong."""
        while not self._broken and not self._client.is_closed:
            self._wake.clear()
            if self._room() >= self._batch - self._batch // 2:
                try:
                    await self._pull()
                except BusError as error:
                    self._broken = str(error)
                    break
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                if self._silent() and not await self._speaks_yet():
                    self.interrupt("no heartbeat from the consumer")
        if self._broken:
            log.info("consumer starts again", inbox=self._inbox, because=self._broken)

    def _silent(self) -> bool:
        return asyncio.get_running_loop().time() - self._heard_at > SILENCE_S

    async def _speaks_yet(self) -> bool:
        """Whether a process that stood still itself has heartbeats to read."""
        await asyncio.sleep(READ_S)
        return not self._silent()

    async def _rest(self, pause_s: float) -> None:
        """A pause that ends at once when the connection is back."""
        self._wake.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _pull(self) -> None:
        count = self._room()
        self._asked += count
        async with translated("pull"):
            await self._client.publish(f"{API}.CONSUMER.MSG.NEXT.{self._consumer}", pull_request(count), self._inbox)

    def _room(self) -> int:
        return self._batch - self._asked - len(self.mailbox)

    def _taken(self) -> None:
        if self._room() >= self._batch - self._batch // 2:
            self._wake.set()

    async def _receive(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status, description = status_of(message), (message.headers or {}).get("Description", "")
        if status in ("", _IDLE, _NO_MESSAGES, _EXPIRED):
            self._lost_at = None
        if status in (_NO_MESSAGES, _EXPIRED):
            unused = int((message.headers or {}).get("Nats-Pending-Messages", self._asked))
            self._asked = max(0, self._asked - unused)
            self._wake.set()
        elif status and status != _IDLE:
            self.interrupt(f"{status} {description}".rstrip(), gone="Deleted" in description)
        elif not status and message.reply:
            self._asked = max(0, self._asked - 1)
            item = self._convert(message)
            if item is None:
                self.interrupt("a message is missing", gone=True)
            else:
                self.mailbox.put(item)
            self._taken()


class _NoLeader(BusUnavailable):
    """Nobody answers for the consumer: it was just made, or its servers are electing one."""


class Pages(Generic[T]):
    """Reads what a consumer holds now, page by page, and ends. Waits as long as for a message until it has a leader."""

    PAGE = 256

    def __init__(
        self, client: Client, consumer: str, convert: Callable[[Msg], tuple[T, bool]], timeout_s: float
    ) -> None:
        """`convert` returns the item and whether it is the last."""
        self._client, self._consumer, self._convert, self._timeout_s = client, consumer, convert, timeout_s
        self._items: deque[T] = deque()
        self._done = False

    def __aiter__(self) -> "Pages[T]":
        return self

    async def __anext__(self) -> T:
        now = asyncio.get_running_loop().time
        asked_at = now()
        while not self._items:
            if self._done:
                raise StopAsyncIteration
            try:
                await self._fetch()
            except _NoLeader:
                if now() - asked_at >= self._timeout_s:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)
        return self._items.popleft()

    async def _fetch(self) -> None:
        arrived: Mailbox[Msg] = Mailbox(2 * self.PAGE)

        async def receive(message: Msg) -> None:
            arrived.put(message)

        inbox = self._client.new_inbox()
        async with translated(self._consumer):
            subscription = await self._client.subscribe(inbox, cb=receive)
            try:
                request = pull_request(self.PAGE, wait=False)
                await self._client.publish(f"{API}.CONSUMER.MSG.NEXT.{self._consumer}", request, inbox)
                for _ in range(self.PAGE):
                    async with asyncio.timeout(self._timeout_s):
                        message = await anext(arrived)
                    if self._take(message):
                        return
            finally:
                if not self._client.is_closed:
                    await subscription.unsubscribe()

    def _take(self, message: Msg) -> bool:
        """Whether the page ends with this message."""
        status = status_of(message)
        if status in (_NO_MESSAGES, _EXPIRED):
            self._done = status == _NO_MESSAGES or not self._items
            return True
        if status:
            error = _NoLeader if status == _NO_RESPONDER else BusUnavailable
            raise error(f"reading {self._consumer}: {status} {(message.headers or {}).get('Description', '')}".rstrip())
        item, self._done = self._convert(message)
        self._items.append(item)
        return self._done
