"""What `Bus` promises, on the in-memory adapter and on a real nats-server alike."""

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil
import pytest

from navarch_common.bus import nats_api
from navarch_common.bus.base import (
    Bus,
    BusError,
    BusMessage,
    BusTimeout,
    BusUnavailable,
    Delivery,
    KvConflict,
    NoResponder,
    StreamRefused,
)
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.bus.matching import BadSubject
from navarch_common.bus.memory import MemoryBus, MemoryServer
from navarch_common.bus.nats_pull import Pages
from navarch_common.events.subjects import ADVISORY, MAX_DELIVERIES, MSG_TERMINATED, StreamSpec

WORK = StreamSpec(
    name="T_WORK",
    subjects=("t.work.*.health", "t.work.*.lifecycle"),
    retention="work_queue",
    max_age=None,
    max_bytes=64 << 20,
    max_message_bytes=65_536,
    discard_new=True,
)
EVENTS = StreamSpec(
    name="T_EVENTS", subjects=("t.events.>",), retention="limits", max_age=timedelta(days=7), max_bytes=64 << 20
)
LATEST = StreamSpec(
    name="T_LATEST",
    subjects=("t.latest.>",),
    retention="limits",
    max_age=timedelta(days=1),
    max_bytes=8 << 20,
    last_per_subject=True,
)
ADVISORIES = StreamSpec(
    name="T_ADVISORIES",
    subjects=(f"{ADVISORY}.{MAX_DELIVERIES}.T_WORK.*", f"{ADVISORY}.{MSG_TERMINATED}.T_WORK.*"),
    retention="limits",
    max_age=timedelta(days=1),
    max_bytes=8 << 20,
)
SPECS = (WORK, EVENTS, LATEST)


class World(Protocol):
    """A bus server that a test may disturb, and connections to it."""

    async def connect(self) -> Bus: ...
    async def kill(self) -> None:
        """As `kill -9`: no goodbye."""
        ...

    async def start(self) -> None: ...
    async def purge(self, stream: str) -> None:
        """As an operator empties a stream."""
        ...

    async def limit_deliveries(self, stream: str, durable: str, most: int) -> None:
        """As an operator sets `max_deliver`, which we never do."""
        ...

    def losing_acks(self) -> AbstractAsyncContextManager[None]:
        """Answers to deliveries are sent, and never arrive."""
        ...

    def losing_replies(self) -> AbstractAsyncContextManager[None]:
        """What is published or written is stored, and its acknowledgement does not arrive in time."""
        ...


class MemoryWorld:
    def __init__(self) -> None:
        self.server = MemoryServer()
        self.connections: list[MemoryBus] = []

    async def connect(self) -> Bus:
        self.connections.append(self.server.connect())
        return self.connections[-1]

    async def kill(self) -> None:
        self.server.stop()

    async def start(self) -> None:
        self.server.start()

    async def purge(self, stream: str) -> None:
        self.server.stream(stream).purge()

    async def limit_deliveries(self, stream: str, durable: str, most: int) -> None:
        self.server.stream(stream).consumers[durable].max_deliver = most

    @asynccontextmanager
    async def losing_acks(self) -> AsyncIterator[None]:
        self.server.faults.lost_acks = 1000
        yield
        self.server.faults.lost_acks = 0

    @asynccontextmanager
    async def losing_replies(self) -> AsyncIterator[None]:
        faults = self.server.faults
        faults.timeout_scale = 0
        faults.lost_replies = faults.lost_kv_replies = 1000
        yield
        faults.lost_replies = faults.lost_kv_replies = 0

    async def close(self) -> None:
        for connection in self.connections:
            await connection.close()


class NatsWorld:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names = itertools.count()
        self.connections: list[JetStreamBus] = []
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def connect(self) -> Bus:
        url = f"nats://127.0.0.1:{self.port}"
        bus = await JetStreamBus.connect(url, name=f"test-{next(self.names)}", rng=random.Random(7))
        self.connections.append(bus)
        return bus

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        await until(lambda: all(not bus.status.connected for bus in self.connections))

    async def purge(self, stream: str) -> None:
        await self._api(f"STREAM.PURGE.{stream}")

    async def limit_deliveries(self, stream: str, durable: str, most: int) -> None:
        config = (await self._api(f"CONSUMER.INFO.{stream}.{durable}"))["config"] | {"max_deliver": most}
        method = f"CONSUMER.CREATE.{stream}.{durable}.{config['filter_subject']}"
        await self._api(method, {"stream_name": stream, "config": config, "action": "update"})

    async def _api(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await nats_api.call(self.connections[0].client, method, body, dict[str, Any])

    @asynccontextmanager
    async def losing_acks(self) -> AsyncIterator[None]:
        """The server hangs, and dies of it with all that it had not read."""
        self.pause()
        yield
        await self.kill()
        await self.start()
        for bus in self.connections:
            await connected(bus)

    @asynccontextmanager
    async def losing_replies(self) -> AsyncIterator[None]:
        """The server hangs, for longer than anyone waits, and then does all that it was asked for."""
        self.pause()
        yield
        self.resume()

    def pause(self) -> None:
        """Returns when it stands still: a signal takes its time where the machine is busy."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    async def start(self) -> None:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once, and outlives this call
                [program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory)],
                stdout=log,
                stderr=log,
            )
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        raise AssertionError((self.directory / "log").read_text())

    async def close(self) -> None:
        for bus in self.connections:
            await bus.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: MemoryWorld | NatsWorld = MemoryWorld() if request.param == "memory" else NatsWorld(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def bus(world: World) -> Bus:
    made = await world.connect()
    await made.ensure_streams(SPECS)
    return made


async def until(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def connected(bus: Bus) -> None:
    await until(lambda: bus.status.connected)
    async with asyncio.timeout(10):  # JetStream is ready a moment after the connection
        while True:
            try:
                await bus.last_message("T_EVENTS", "t.events.none")
            except BusError:
                await asyncio.sleep(0.05)
            else:
                return


async def take(iterator: AsyncIterator[Delivery], count: int, timeout_s: float = 10.0) -> list[Delivery]:
    async with asyncio.timeout(timeout_s):
        return [await anext(iterator) for _ in range(count)]


async def nothing_more(iterator: AsyncIterator[object], within_s: float = 0.3) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(within_s):
            await anext(iterator)


# Core messages


async def test_a_message_reaches_every_subscriber_and_one_of_a_queue_group(world: World) -> None:
    first, second = await world.connect(), await world.connect()
    async with (
        first.subscribe("t.core.*") as one,
        second.subscribe("t.core.>") as two,
        first.subscribe("t.core.*", queue="g") as g1,
        second.subscribe("t.core.*", queue="g") as g2,
    ):
        for number in range(20):
            await first.publish("t.core.a", b"%d" % number)
        async with asyncio.timeout(5):
            assert [(await anext(one)).data for _ in range(20)] == [b"%d" % n for n in range(20)]
            assert [(await anext(two)).data for _ in range(20)] == [b"%d" % n for n in range(20)]
        grouped = [*(await drained(g1)), *(await drained(g2))]
        assert len(grouped) == 20


async def drained(iterator: AsyncIterator[BusMessage]) -> list[bytes]:
    found: list[bytes] = []
    try:
        while True:
            async with asyncio.timeout(0.2):
                found.append((await anext(iterator)).data)
    except TimeoutError:
        return found


async def test_headers_arrive_as_they_were_sent_also_beyond_ascii(bus: Bus) -> None:
    headers = {"traceparent": "00-1-2-03", "Reason": "Gerät verloren – ünïcode"}
    async with bus.subscribe("t.core.a") as heard:
        await bus.publish("t.core.a", b"x", headers=headers)
        async with asyncio.timeout(5):
            assert (await anext(heard)).headers == headers
    await bus.publish_durable("t.events.a", b"x", msg_id="1", headers=headers)
    last = await bus.last_message("T_EVENTS", "t.events.a")
    assert last is not None
    assert last.headers == headers | {"Nats-Msg-Id": "1"}


async def test_a_request_is_answered_or_says_why_not(bus: Bus) -> None:
    with pytest.raises(NoResponder):
        await bus.request("t.nobody", b"?", timeout_s=1)
    async with bus.subscribe("t.ask") as asked, asyncio.TaskGroup() as group:
        answer = group.create_task(bus.request("t.ask", b"?", timeout_s=5))
        await bus.reply(await anext(asked), b"!")
        assert (await answer).data == b"!"
        with pytest.raises(BusTimeout):
            await bus.request("t.ask", b"?", timeout_s=0.1)


async def test_a_reply_goes_to_inboxes_only(bus: Bus) -> None:
    with pytest.raises(BusError, match="only inboxes"):
        await bus.reply(BusMessage("t.ask", b"", {}, "t.commands.victim"), b"!")


async def test_a_member_of_a_queue_group_that_does_not_read_gets_its_share_all_the_same(world: World) -> None:
    """So nobody who must hear everything may be in one: what a stopped copy is sent, no other hears."""
    reading, stopped = await world.connect(), await world.connect()
    async with (
        reading.subscribe("t.core.a", queue="g") as heard,
        stopped.subscribe("t.core.a", queue="g") as unheard,
    ):
        for _ in range(200):
            await reading.publish("t.core.a", b"x")
        assert len(await drained(heard)) < 200
        assert len(await drained(unheard)) > 0


@pytest.mark.parametrize("subject", ["", "a..b", "a b", "a\r\nPUB x", "a.*", "a.>", "a.\x00"])
async def test_what_is_no_subject_is_refused_before_it_is_sent(bus: Bus, subject: str) -> None:
    with pytest.raises(BadSubject):
        await bus.publish(subject, b"x")
    with pytest.raises(BadSubject):
        await bus.publish_durable(subject, b"x", msg_id="1")


async def test_a_slow_reader_loses_messages_and_they_are_counted(bus: Bus) -> None:
    async with bus.subscribe("t.core.a", pending_max=10) as heard:
        for _ in range(50):
            await bus.publish("t.core.a", b"x")
        await until(lambda: bus.status.dropped >= 40)
        assert bus.status.dropped == 40
        assert len(await drained(heard)) == 10


async def test_iteration_ends_when_the_bus_is_closed(world: World) -> None:
    bus = await world.connect()
    await bus.ensure_streams(SPECS)
    async with (
        bus.subscribe("t.core.a") as core,
        bus.consume("T_WORK", "d", "t.work.*.health") as work,
        bus.read("T_EVENTS", follow=True) as events,
    ):
        readers = [asyncio.create_task(everything(each)) for each in (core, work, events)]
        await asyncio.sleep(0.05)
        await bus.close()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*readers) == [[], [], []]
    with pytest.raises(BusUnavailable):
        await bus.publish("t.core.a", b"x")


async def test_a_connection_that_breaks_while_it_is_closed_hides_no_other_error(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await JetStreamBus.connect(nats_url, name="breaks", rng=random.Random(1))

    async def breaks() -> None:
        raise ConnectionResetError("Connection lost")

    whole = bus._client.close
    monkeypatch.setattr(bus._client, "close", breaks)
    await bus.close()
    await whole()


async def everything(iterator: AsyncIterator[object]) -> list[object]:
    return [item async for item in iterator]


# Streams


async def test_a_stored_message_is_there_once_however_often_it_is_published(bus: Bus) -> None:
    first = await bus.publish_durable("t.events.a", b"1", msg_id="one")
    again = await bus.publish_durable("t.events.a", b"1", msg_id="one")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.sequence == again.sequence
    async with bus.read("T_EVENTS") as found:
        assert len(await everything(found)) == 1


async def test_a_known_id_is_a_duplicate_whatever_its_subject_and_content(bus: Bus) -> None:
    await bus.publish_durable("t.events.a", b"1", msg_id="one")
    assert (await bus.publish_durable("t.events.b", b"2", msg_id="one")).duplicate
    assert await bus.last_message("T_EVENTS", "t.events.b") is None


async def test_the_duplicate_window_ends(bus: Bus) -> None:
    spec = StreamSpec("T_SHORT", ("t.short",), "limits", None, 1 << 20, timedelta(milliseconds=200))
    await bus.ensure_streams([spec])
    await bus.publish_durable("t.short", b"1", msg_id="one")
    await asyncio.sleep(0.5)
    assert not (await bus.publish_durable("t.short", b"1", msg_id="one")).duplicate


async def test_an_id_stays_known_when_its_message_was_purged(world: World, bus: Bus) -> None:
    """It is acknowledged, and nothing is stored: an id is never used for something new."""
    first = await bus.publish_durable("t.events.a", b"1", msg_id="one")
    await world.purge("T_EVENTS")
    again = await bus.publish_durable("t.events.a", b"1", msg_id="one")
    assert (again.duplicate, again.sequence) == (True, first.sequence)
    assert await bus.last_message("T_EVENTS", "t.events.a") is None


async def test_an_id_stays_known_when_its_message_was_done_and_removed(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as work:
        (message,) = await take(work, 1)
        await message.ack()
        assert (await bus.publish_durable("t.work.a.health", b"1", msg_id="one")).duplicate
        await nothing_more(work, 0.6)


async def test_streams_do_not_share_ids(bus: Bus) -> None:
    await bus.publish_durable("t.events.a", b"1", msg_id="one")
    assert not (await bus.publish_durable("t.latest.a", b"1", msg_id="one")).duplicate


async def test_a_stream_that_would_know_ids_longer_than_messages_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamRefused, match="window"):
        await bus.ensure_streams([StreamSpec("T_BRIEF", ("t.brief",), "limits", timedelta(minutes=1), 1 << 20)])


async def test_what_is_too_old_is_neither_read_nor_delivered(bus: Bus) -> None:
    await bus.ensure_streams(
        [StreamSpec("T_BRIEF", ("t.brief",), "limits", timedelta(seconds=0.5), 1 << 20, timedelta(seconds=0.5))]
    )
    await bus.publish_durable("t.brief", b"1", msg_id="one")
    await asyncio.sleep(1.5)
    assert await bus.last_message("T_BRIEF", "t.brief") is None
    async with bus.read("T_BRIEF") as found:
        assert await everything(found) == []
    async with bus.consume("T_BRIEF", "d", "t.brief") as brief:
        await nothing_more(brief)


async def test_a_message_without_a_stream_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamRefused):
        await bus.publish_durable("t.elsewhere", b"1", msg_id="one")


async def test_a_message_too_large_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamRefused):
        await bus.publish_durable("t.work.a.health", b"x" * 65_537, msg_id="one")
    with pytest.raises(BusError):
        await bus.publish("t.core.a", b"x" * 1_048_577)


async def test_a_full_work_queue_refuses_while_a_full_log_forgets_the_oldest(bus: Bus) -> None:
    full = StreamSpec("T_FULL", ("t.full",), "limits", None, 10_000, discard_new=True)
    ring = StreamSpec("T_RING", ("t.ring",), "limits", None, 10_000)
    await bus.ensure_streams([full, ring])
    accepted = 0
    with suppress(StreamRefused):
        for number in range(100):
            await bus.publish_durable("t.full", b"x" * 1000, msg_id=str(number))
            accepted += 1
    assert 5 < accepted < 20
    for number in range(100):
        await bus.publish_durable("t.ring", b"x" * 1000, msg_id=str(number))
    async with bus.read("T_RING") as found:
        kept = [message.sequence async for message in found]
    assert kept
    assert kept[0] > 80
    assert kept[-1] == 100


async def test_a_plain_publish_is_stored_too_where_a_stream_listens(bus: Bus) -> None:
    await bus.publish("t.latest.queue", b"73")
    async with asyncio.timeout(5):
        while (last := await bus.last_message("T_LATEST", "t.latest.queue")) is None:
            await asyncio.sleep(0.01)
    assert last.data == b"73"


async def test_a_plain_subscriber_hears_a_stored_message_at_once(bus: Bus) -> None:
    async with bus.subscribe("t.events.>") as heard:
        await bus.publish_durable("t.events.a", b"1", msg_id="one")
        async with asyncio.timeout(5):
            assert (await anext(heard)).data == b"1"


async def test_only_the_last_message_of_a_subject_is_kept_where_asked(bus: Bus) -> None:
    for number in range(3):
        await bus.publish_durable("t.latest.a", b"%d" % number, msg_id=f"a{number}")
        await bus.publish_durable("t.latest.b", b"%d" % number, msg_id=f"b{number}")
    async with bus.read("T_LATEST") as found:
        assert [(m.subject, m.data) async for m in found] == [("t.latest.a", b"2"), ("t.latest.b", b"2")]


async def test_ensuring_streams_twice_changes_nothing_and_never_narrows(bus: Bus) -> None:
    await bus.publish_durable("t.events.a", b"1", msg_id="one")
    assert await bus.ensure_streams(SPECS) == []
    wider = StreamSpec("T_EVENTS", ("t.events.>", "t.more"), "limits", timedelta(days=30), 64 << 20)
    assert await bus.ensure_streams([wider]) == []
    await bus.publish_durable("t.more", b"1", msg_id="two")
    assert await bus.last_message("T_EVENTS", "t.events.a") is not None


async def test_more_replicas_than_servers_is_said_in_a_sentence(bus: Bus) -> None:
    spec = StreamSpec("T_THREE", ("t.three",), "limits", None, 1 << 20)
    sentences = await bus.ensure_streams([spec], replicas=3)
    assert len(sentences) == 1
    assert "3" in sentences[0]
    await bus.publish_durable("t.three", b"1", msg_id="one")


async def test_a_stream_of_another_kind_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamRefused, match="retention"):
        await bus.ensure_streams([StreamSpec("T_WORK", WORK.subjects, "limits", None, 1 << 20)])
    with pytest.raises(StreamRefused):
        await bus.ensure_streams([StreamSpec("T_OTHER", ("t.events.a",), "limits", None, 1 << 20)])


# Consumers


async def test_a_message_comes_until_it_is_acknowledged(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one", headers={"k": "v"})
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.4) as work:
        (first,) = await take(work, 1)
        assert (first.data, first.subject, first.deliveries, first.sequence) == (b"1", "t.work.a.health", 1, 1)
        assert first.headers["k"] == "v"
        assert abs(first.stored_at - datetime.now(UTC)) < timedelta(seconds=60)
        started = asyncio.get_running_loop().time()
        (again,) = await take(work, 1)
        assert again.deliveries == 2
        assert 0.2 < asyncio.get_running_loop().time() - started < 3
        await again.ack()
        await nothing_more(work, 1.0)
    assert await bus.pending("T_WORK", "d") == 0


async def test_a_message_given_back_comes_again_after_its_delay(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health") as work:
        (first,) = await take(work, 1)
        await first.nak(0.5)
        await nothing_more(work, 0.2)
        (again,) = await take(work, 1)
        assert again.deliveries == 2
        await again.ack()


async def test_work_in_progress_is_not_given_to_another(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.6) as work:
        (first,) = await take(work, 1)
        for _ in range(4):
            await asyncio.sleep(0.3)
            await first.in_progress()
        await first.ack()
        await nothing_more(work, 0.8)


async def test_a_terminated_message_never_comes_again(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as work:
        (first,) = await take(work, 1)
        await first.term()
        await nothing_more(work, 0.8)
    assert await bus.pending("T_WORK", "d") == 0


async def test_a_stream_may_keep_what_the_server_tells_of_a_terminated_message(bus: Bus) -> None:
    await bus.ensure_streams([ADVISORIES])
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    await bus.publish_durable("t.work.a.health", b"2", msg_id="two")
    async with bus.consume("T_WORK", "d", "t.work.*.health") as work:
        first, second = await take(work, 2)
        await first.ack()
        await second.term()
        await second.term()  # it is told again, though nothing is left to end
        async with asyncio.timeout(5), bus.read("T_ADVISORIES", follow=True) as told:
            advisory, again = await anext(told), await anext(told)
        assert advisory.subject == "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.T_WORK.d"
        said = msgspec.json.decode(advisory.data)
        assert (said["stream"], said["consumer"], said["stream_seq"], said["deliveries"]) == ("T_WORK", "d", 2, 1)
        assert msgspec.json.decode(again.data)["stream_seq"] == 2


async def test_a_server_tells_of_a_message_that_it_delivers_no_more_and_the_message_stays(tmp_path: Path) -> None:
    """Our own consumers have no such limit; somebody else may set one."""
    world = NatsWorld(tmp_path)
    await world.start()
    try:
        bus = await world.connect()
        assert isinstance(bus, JetStreamBus)
        await bus.ensure_streams([*SPECS, ADVISORIES])
        config = {"durable_name": "limited", "ack_policy": "explicit", "ack_wait": 200_000_000, "max_deliver": 1}
        body = msgspec.json.encode({"stream_name": "T_WORK", "config": config})
        await bus.client.request("$JS.API.CONSUMER.CREATE.T_WORK.limited", body)
        await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
        heard = await bus.client.subscribe(inbox := bus.client.new_inbox())
        for _ in range(2):  # it is a pull after ack_wait that finds the limit reached
            pull = b'{"batch":1,"expires":5000000000}'
            await bus.client.publish("$JS.API.CONSUMER.MSG.NEXT.T_WORK.limited", pull, reply=inbox)
            await asyncio.sleep(0.5)
        assert (await heard.next_msg()).data == b"1"
        async with asyncio.timeout(10), bus.read("T_ADVISORIES", follow=True) as told:
            advisory = await anext(told)
        assert advisory.subject == "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.T_WORK.limited"
        assert msgspec.json.decode(advisory.data)["stream_seq"] == 1
        left = await bus.message("T_WORK", 1)
        assert left is not None
        assert (left.subject, left.data) == ("t.work.a.health", b"1")
    finally:
        await world.close()


async def test_a_stale_acknowledgement_removes_the_message_from_under_its_new_holder(world: World, bus: Bus) -> None:
    other = await world.connect()
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as mine:
        (stale,) = await take(mine, 1)
    async with other.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as theirs:
        (current,) = await take(theirs, 1)
        assert current.deliveries == 2
        await stale.ack()
        await nothing_more(theirs, 0.8)
        await current.ack()  # and nobody tells it


async def test_copies_share_the_work_and_each_message_goes_to_one(world: World, bus: Bus) -> None:
    other = await world.connect()
    done: list[bytes] = []

    async def work(on: Bus) -> None:
        async with on.consume("T_WORK", "d", "t.work.*.health", batch=8) as messages:
            async for message in messages:
                done.append(message.data)
                await message.ack()

    workers = [asyncio.create_task(work(bus)), asyncio.create_task(work(other))]
    for number in range(200):
        await bus.publish_durable("t.work.a.health", b"%d" % number, msg_id=str(number))
    await until(lambda: len(done) >= 200)
    assert sorted(done) == sorted(b"%d" % n for n in range(200))
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_no_more_than_the_allowed_number_is_out_at_once(bus: Bus) -> None:
    for number in range(20):
        await bus.publish_durable("t.work.a.health", b"%d" % number, msg_id=str(number))
    async with bus.consume("T_WORK", "d", "t.work.*.health", max_ack_pending=5) as work:
        held = await take(work, 5)
        await nothing_more(work)
        assert await bus.pending("T_WORK", "d") == 20
        await held[0].ack()
        assert [message.data for message in await take(work, 1)] == [b"5"]


async def test_all_readers_of_a_consumer_share_what_may_be_out_at_once(world: World, bus: Bus) -> None:
    """A few messages that nobody finishes stall every copy."""
    other = await world.connect()
    for number in range(20):
        await bus.publish_durable("t.work.a.health", b"%d" % number, msg_id=str(number))
    async with (
        bus.consume("T_WORK", "d", "t.work.*.health", max_ack_pending=5, batch=4) as mine,
        other.consume("T_WORK", "d", "t.work.*.health", max_ack_pending=5, batch=4) as theirs,
    ):
        held = [*await taken(mine), *await taken(theirs)]
        assert len(held) == 5
        await held[0].ack()
        assert len([*await taken(mine), *await taken(theirs)]) == 1


async def taken(iterator: AsyncIterator[Delivery]) -> list[Delivery]:
    """What comes before it is quiet for a moment."""
    found: list[Delivery] = []
    with suppress(TimeoutError):
        while True:
            found += await take(iterator, 1, 0.3)
    return found


async def test_an_acknowledgement_that_was_lost_lets_the_message_come_again(world: World, bus: Bus) -> None:
    """Nobody answers to an acknowledgement: whoever sends one knows only that it was sent."""
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=1.0) as work:
        (first,) = await take(work, 1)
        async with world.losing_acks():
            await first.ack()
        (again,) = await take(work, 1, 15)
        assert (again.data, again.sequence) == (b"1", first.sequence)
        await again.ack()
        await nothing_more(work, 1.5)
    assert await bus.pending("T_WORK", "d") == 0


async def test_what_was_handed_to_a_reader_that_left_comes_to_another(world: World, bus: Bus) -> None:
    """Also what it had not looked at: with the server all of it is out."""
    other = await world.connect()
    for number in range(10):
        await bus.publish_durable("t.work.a.health", b"%d" % number, msg_id=str(number))
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.5) as mine:
        await take(mine, 1)
        await asyncio.sleep(0.2)
    async with other.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.5) as theirs:
        found = await take(theirs, 10)
        assert sorted(message.data for message in found) == [b"%d" % n for n in range(10)]
        for message in found:
            await message.ack()
        await nothing_more(theirs, 1.0)


async def test_what_comes_again_comes_before_what_is_new(bus: Bus) -> None:
    """And so not in the order of the stream: a reader that needs an order has to know it from the content."""
    for number in range(3):
        await bus.publish_durable("t.work.a.health", b"%d" % number, msg_id=str(number))
    async with bus.consume("T_WORK", "d", "t.work.*.health", max_ack_pending=2) as work:
        first, second = await take(work, 2)
        await second.nak(0.2)
        await asyncio.sleep(0.6)
        await first.ack()
        assert [message.data for message in await take(work, 2)] == [b"1", b"2"]


async def test_a_purge_takes_what_is_out_with_it_and_a_late_acknowledgement_does_no_harm(
    world: World, bus: Bus
) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as work:
        (purged,) = await take(work, 1)
        await world.purge("T_WORK")
        assert await bus.pending("T_WORK", "d") == 0
        await nothing_more(work, 0.8)
        await purged.ack()
        await purged.nak(0.0)
        stored = await bus.publish_durable("t.work.a.health", b"2", msg_id="two")
        assert stored.sequence == purged.sequence + 1
        assert [message.data for message in await take(work, 1)] == [b"2"]


async def test_a_consumer_made_late_hears_what_was_stored_before(bus: Bus) -> None:
    """Which a subscriber from outside rests on: it may come days after the failure that it wants to know of."""
    for number in range(3):
        await bus.publish_durable("t.events.a", b"%d" % number, msg_id=str(number))
    async with bus.consume("T_EVENTS", "late", "t.events.>") as events:
        assert [message.data for message in await take(events, 3)] == [b"0", b"1", b"2"]


async def test_a_subscriber_that_never_acknowledges_holds_up_nobody_else_and_its_lag_shows(
    world: World, bus: Bus
) -> None:
    stuck = await world.connect()
    async with (
        stuck.consume("T_EVENTS", "stuck", "t.events.>", ack_wait_s=0.3, max_ack_pending=5) as never,
        bus.consume("T_EVENTS", "good", "t.events.>") as good,
        bus.subscribe("t.events.>") as plain,
    ):
        for number in range(50):
            await bus.publish_durable("t.events.a", b"%d" % number, msg_id=str(number))
        await take(never, 12)  # the same five again and again
        for message in await take(good, 50):
            await message.ack()
        async with asyncio.timeout(5):
            assert [(await anext(plain)).data for _ in range(50)] == [b"%d" % number for number in range(50)]
            while await bus.pending("T_EVENTS", "good"):
                await asyncio.sleep(0.05)
    assert await bus.pending("T_EVENTS", "stuck") == 50


async def test_a_reader_that_lags_behind_a_full_log_sees_the_gap_in_the_sequence(bus: Bus) -> None:
    """Nothing else tells it that it has missed something."""
    await bus.ensure_streams([StreamSpec("T_RING", ("t.ring",), "limits", None, 10_000)])
    async with bus.consume("T_RING", "slow", "t.ring", batch=1, max_ack_pending=1) as ring:
        await bus.publish_durable("t.ring", b"x" * 1000, msg_id="0")
        (first,) = await take(ring, 1)
        for number in range(1, 50):
            await bus.publish_durable("t.ring", b"x" * 1000, msg_id=str(number))
        await first.ack()
        seen = [first.sequence]
        for _ in range(2):  # a server may have the next one in its hands already
            (message,) = await take(ring, 1)
            assert message.deliveries == 1
            await message.ack()
            seen.append(message.sequence)
        assert seen[0] == 1
        assert seen[-1] > 30


async def test_a_limit_on_deliveries_parks_the_message_unseen_and_only_an_advisory_tells(
    world: World, bus: Bus
) -> None:
    """Why no consumer of ours has one. Opening it again takes the limit away, but brings nothing back."""
    await bus.publish_durable("t.work.a.health", b"poison", msg_id="one")
    async with bus.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>") as advisories:
        async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as work:
            await take(work, 1)
            await world.limit_deliveries("T_WORK", "d", 2)
            assert [message.deliveries for message in await take(work, 1)] == [2]
            await nothing_more(work, 1.0)
        async with asyncio.timeout(5):
            advisory = await anext(advisories)
        assert advisory.subject == "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.T_WORK.d"
        said = json.loads(advisory.data)
        assert (said["type"], said["stream_seq"]) == ("io.nats.jetstream.advisory.v1.max_deliver", 1)
        assert (said["stream"], said["consumer"], said["deliveries"]) == ("T_WORK", "d", 2)
    assert await bus.pending("T_WORK", "d") == 0
    assert await bus.last_message("T_WORK", "t.work.a.health") is not None
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.3) as work:
        await nothing_more(work, 1.0)
        await bus.publish_durable("t.work.a.health", b"next", msg_id="two")
        assert [message.data for message in await take(work, 1)] == [b"next"]


async def test_a_message_without_a_limit_comes_again_and_again(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=30) as work:
        for deliveries in range(1, 13):
            (message,) = await take(work, 1)
            assert message.deliveries == deliveries
            await message.nak(0.0)


async def test_a_terminated_message_is_told_of_by_an_advisory_and_leaves_a_work_queue(bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"poison", msg_id="one")
    async with (
        bus.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>") as advisories,
        bus.consume("T_WORK", "d", "t.work.*.health") as work,
    ):
        (poison,) = await take(work, 1)
        await poison.term()
        await poison.term()
        async with asyncio.timeout(5):
            said, again = [json.loads((await anext(advisories)).data) for _ in range(2)]
        assert again["stream_seq"] == 1, "told again, though there is nothing left to end"
        assert (said["type"], said["stream_seq"]) == ("io.nats.jetstream.advisory.v1.terminated", 1)
        assert (said["stream"], said["consumer"]) == ("T_WORK", "d")
    assert await bus.last_message("T_WORK", "t.work.a.health") is None


async def test_an_advisory_is_kept_where_a_stream_takes_it(world: World, bus: Bus) -> None:
    """Nobody need be listening when it is sent."""
    subject = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.T_WORK.d"
    await bus.ensure_streams([StreamSpec("T_ADVISORIES", (subject,), "limits", None, 1 << 20)])
    await bus.publish_durable("t.work.a.health", b"poison", msg_id="one")
    async with bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=0.2) as work:
        await take(work, 1)
        await world.limit_deliveries("T_WORK", "d", 1)
        await nothing_more(work, 0.6)
    async with asyncio.timeout(5):
        while (kept := await bus.last_message("T_ADVISORIES", subject)) is None:
            await asyncio.sleep(0.05)
    assert json.loads(kept.data)["stream_seq"] == 1


async def test_a_consumer_hears_only_its_filter_and_overlapping_ones_are_refused(bus: Bus) -> None:
    async with (
        bus.consume("T_WORK", "health", "t.work.*.health") as health,
        bus.consume("T_WORK", "provisioner", "t.work.*.lifecycle") as lifecycle,
    ):
        await bus.publish_durable("t.work.a.health", b"h", msg_id="1")
        await bus.publish_durable("t.work.a.lifecycle", b"l", msg_id="2")
        assert [m.data for m in await take(health, 1)] == [b"h"]
        assert [m.data for m in await take(lifecycle, 1)] == [b"l"]
        with pytest.raises(StreamRefused):
            async with bus.consume("T_WORK", "third", "t.work.a.health"):
                pass


async def test_consuming_from_a_stream_that_is_not_there_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamRefused):
        async with bus.consume("T_NONE", "d", "t.none"):
            pass
    with pytest.raises(StreamRefused):
        await bus.pending("T_WORK", "none")


async def test_many_messages_flow_in_order_through_a_small_batch(bus: Bus) -> None:
    for number in range(300):
        await bus.publish("t.events.a", b"%d" % number)
    async with bus.consume("T_EVENTS", "d", "t.events.>", batch=4) as events:
        for number in range(300):
            (message,) = await take(events, 1)
            assert message.data == b"%d" % number
            await message.ack()
    async with asyncio.timeout(10):  # an acknowledgement is sent, not awaited
        while await bus.pending("T_EVENTS", "d"):
            await asyncio.sleep(0.01)


async def test_a_limits_stream_keeps_what_was_acknowledged_for_other_consumers(bus: Bus) -> None:
    await bus.publish_durable("t.events.a", b"1", msg_id="one")
    for durable in ("first", "second"):
        async with bus.consume("T_EVENTS", durable, "t.events.>") as events:
            (message,) = await take(events, 1)
            assert message.pending == 0
            await message.ack()


# Reading


async def test_a_stream_is_read_from_where_one_asks(bus: Bus) -> None:
    for number in range(600):
        await bus.publish(f"t.events.{'ab'[number % 2]}", b"%d" % number)
    await bus.publish_durable("t.events.c", b"end", msg_id="end")
    async with bus.read("T_EVENTS") as found:
        assert [m.sequence async for m in found] == list(range(1, 602))
    async with bus.read("T_EVENTS", start_sequence=500) as found:
        assert [m.sequence async for m in found] == list(range(500, 602))
    async with bus.read("T_EVENTS", ["t.events.b", "t.events.c"], start_sequence=590) as found:
        assert [m.sequence async for m in found] == [590, 592, 594, 596, 598, 600, 601]
    async with bus.read("T_EVENTS", last_per_subject=True) as found:
        assert [m.data async for m in found] == [b"598", b"599", b"end"]
    async with bus.read("T_EVENTS", ["t.events.none"]) as found:
        assert await everything(found) == []
    async with bus.read("T_EVENTS", start_at=datetime.now(UTC) + timedelta(hours=1)) as found:
        assert await everything(found) == []
    async with bus.read("T_EVENTS", start_at=datetime.now(UTC) - timedelta(hours=1), start_sequence=None) as found:
        assert len(await everything(found)) == 601


async def test_a_stream_tells_when_it_was_made_and_its_last_word_on_any_subject(bus: Bus) -> None:
    before = datetime.now(UTC)
    await bus.ensure_streams(
        [StreamSpec(name="T_NEW", subjects=("t.new.>",), retention="limits", max_age=None, max_bytes=8 << 20)]
    )
    made_at = await bus.stream_made_at("T_NEW")
    assert before - timedelta(seconds=1) <= made_at <= datetime.now(UTC) + timedelta(seconds=1)
    for number, subject in enumerate(("t.new.a.x", "t.new.b.x", "t.new.b.y")):
        await bus.publish_durable(subject, str(number).encode(), msg_id=subject)
    for pattern, last in (("t.new.>", b"2"), ("t.new.*.x", b"1"), ("t.new.a.*", b"0"), ("t.new.a.x", b"0")):
        found = await bus.last_message("T_NEW", pattern)
        assert found is not None
        assert found.data == last
    assert await bus.last_message("T_NEW", "t.new.c.>") is None
    assert await bus.stream_made_at("T_NEW") == made_at
    with pytest.raises(StreamRefused):
        await bus.stream_made_at("T_NONE")


async def test_a_work_queue_has_no_readers_and_each_of_its_messages_can_be_looked_at(bus: Bus) -> None:
    headers = {"a": "b"}
    await bus.publish_durable("t.work.a.health", b"1", msg_id="one", headers=headers)
    with pytest.raises(StreamRefused):
        async with bus.read("T_WORK"):
            pass
    found = await bus.message("T_WORK", 1)
    assert found is not None
    assert (found.subject, found.data, found.sequence) == ("t.work.a.health", b"1", 1)
    assert found.headers == {"a": "b", "Nats-Msg-Id": "one"}
    assert await bus.message("T_WORK", 2) is None


async def test_following_a_stream_gives_what_is_there_and_then_what_comes(bus: Bus) -> None:
    await bus.publish_durable("t.events.a", b"1", msg_id="1")
    async with bus.read("T_EVENTS", ["t.events.a"], follow=True) as found:
        await bus.publish_durable("t.events.b", b"2", msg_id="2")
        await bus.publish_durable("t.events.a", b"3", msg_id="3")
        async with asyncio.timeout(5):
            assert [(await anext(found)).data, (await anext(found)).data] == [b"1", b"3"]
        await nothing_more(found)


async def test_reading_ends_at_what_was_the_end_though_more_is_published(bus: Bus) -> None:
    for number in range(10):
        await bus.publish_durable("t.events.a", b"%d" % number, msg_id=str(number))
    async with bus.read("T_EVENTS") as found:
        await bus.publish_durable("t.events.a", b"late", msg_id="late")
        assert [m.data async for m in found] == [b"%d" % n for n in range(10)]


async def test_reading_waits_for_a_consumer_that_nobody_leads_yet_and_says_so_where_nobody_will(nats_url: str) -> None:
    bus = await JetStreamBus.connect(nats_url, name="leaderless", rng=random.Random(1))
    client = bus._client
    try:
        await bus.ensure_streams(SPECS)
        await bus.publish_durable("t.events.a", b"x", msg_id="leaderless")

        def pages(timeout_s: float) -> Pages[bytes]:
            return Pages(client, "T_EVENTS.late", lambda message: (message.data, True), timeout_s)

        with pytest.raises(BusUnavailable, match=r"reading T_EVENTS\.late: 503"):
            await everything(pages(0.3))
        read = asyncio.create_task(everything(pages(10.0)))
        await asyncio.sleep(0.3)
        assert not read.done()
        config = {"name": "late", "ack_policy": "none", "mem_storage": True, "filter_subject": "t.events.a"}
        made = {"stream_name": "T_EVENTS", "config": config, "action": "create"}
        await nats_api.call(client, "CONSUMER.CREATE.T_EVENTS.late", made, nats_api.ConsumerInfo)
        assert await read == [b"x"]
    finally:
        await bus.close()


# Keys and values


async def test_an_entry_is_written_only_at_the_expected_revision(bus: Bus) -> None:
    assert await bus.kv_get("T_STATE", "meta") is None
    first = await bus.kv_put("T_STATE", "meta", b"1", expected_revision=0)
    with pytest.raises(KvConflict):
        await bus.kv_put("T_STATE", "meta", b"2", expected_revision=0)
    second = await bus.kv_put("T_STATE", "meta", b"2", expected_revision=first)
    with pytest.raises(KvConflict):
        await bus.kv_put("T_STATE", "meta", b"3", expected_revision=first)
    third = await bus.kv_put("T_STATE", "meta", b"3")
    entry = await bus.kv_get("T_STATE", "meta")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"3", third)
    assert first < second < third
    assert await bus.kv_get("T_STATE", "other") is None


async def test_of_many_who_create_an_entry_one_wins(world: World, bus: Bus) -> None:
    await bus.kv_put("T_STATE", "other", b"")

    async def create(number: int) -> bool:
        try:
            await bus.kv_put("T_STATE", "one", b"%d" % number, expected_revision=0)
        except KvConflict:
            return False
        return True

    assert sum(await asyncio.gather(*(create(number) for number in range(20)))) == 1


@pytest.mark.parametrize("key", ["", "a b", "a..b", ".a", "a.", "*", ">", "é", "a\n"])
async def test_what_is_no_key_of_a_bucket_is_refused_before_it_is_sent(bus: Bus, key: str) -> None:
    with pytest.raises(BadSubject, match="no key"):
        await bus.kv_put("T_STATE", key, b"1")
    with pytest.raises(BadSubject, match="no key"):
        await bus.kv_get("T_STATE", key)


async def test_an_entry_whose_acknowledgement_was_lost_is_settled_by_reading_it(world: World, bus: Bus) -> None:
    """Writing it again at the same revision would look like someone else's victory."""
    first = await bus.kv_put("T_STATE", "k", b"1")
    async with world.losing_replies():
        with pytest.raises(BusTimeout):
            await bus.kv_put("T_STATE", "k", b"mine", expected_revision=first)
    async with asyncio.timeout(5):
        while (found := await bus.kv_get("T_STATE", "k")) is None or found.value == b"1":
            await asyncio.sleep(0.05)
    assert (found.value, found.revision) == (b"mine", first + 1)
    with pytest.raises(KvConflict):
        await bus.kv_put("T_STATE", "k", b"mine", expected_revision=first)


# Trouble


async def test_publishing_while_disconnected_raises_instead_of_hoarding(world: World, bus: Bus) -> None:
    await world.kill()
    assert not bus.status.connected
    with pytest.raises(BusUnavailable):
        await bus.publish("t.core.a", b"x")
    with pytest.raises(BusUnavailable):
        await bus.publish_durable("t.events.a", b"x", msg_id="1")
    with pytest.raises(BusUnavailable):
        async with bus.subscribe("t.core.a"):
            pass
    await world.start()
    await connected(bus)
    assert bus.status.disconnects == 1
    assert await bus.last_message("T_EVENTS", "t.events.a") is None


async def test_a_killed_server_keeps_messages_ids_and_consumers_and_readers_go_on(world: World, bus: Bus) -> None:
    await bus.publish_durable("t.work.a.health", b"before", msg_id="1")
    await bus.publish_durable("t.work.b.health", b"unacknowledged", msg_id="2")
    await bus.publish_durable("t.events.a", b"event", msg_id="e1")
    await bus.kv_put("T_STATE", "k", b"v")
    async with (
        bus.consume("T_WORK", "d", "t.work.*.health", ack_wait_s=1.0) as work,
        bus.subscribe("t.core.a") as core,
        bus.read("T_EVENTS", follow=True) as events,
    ):
        first, second = await take(work, 2)
        await first.ack()
        async with asyncio.timeout(5):
            assert (await anext(events)).data == b"event"
        await asyncio.sleep(0.1)
        await world.kill()
        with pytest.raises(BusUnavailable):
            await second.ack()
        await world.start()
        await connected(bus)
        assert (await bus.publish_durable("t.events.a", b"event", msg_id="e1")).duplicate
        await bus.publish_durable("t.work.a.health", b"after", msg_id="3")
        await bus.publish_durable("t.events.b", b"event after", msg_id="e2")
        again = await take(work, 2, 15)
        assert sorted(message.data for message in again) == [b"after", b"unacknowledged"]
        for message in again:
            await message.ack()
        async with asyncio.timeout(15):
            assert (await anext(events)).data == b"event after"
        await bus.publish("t.core.a", b"heard")
        async with asyncio.timeout(5):
            assert (await anext(core)).data == b"heard"
        entry = await bus.kv_get("T_STATE", "k")
        assert entry is not None
        assert entry.value == b"v"


async def test_a_restarted_server_has_forgotten_the_ids_of_messages_that_were_acknowledged_away(
    world: World, bus: Bus
) -> None:
    """It reads them from what it still holds: one more reason why consumers of a work queue are idempotent."""
    await bus.publish_durable("t.work.a.health", b"1", msg_id="1")
    async with bus.consume("T_WORK", "d", "t.work.*.health") as work:
        (message,) = await take(work, 1)
        await message.ack()
        await asyncio.sleep(0.1)
    assert (await bus.publish_durable("t.work.a.health", b"1", msg_id="1")).duplicate
    await world.kill()
    await world.start()
    await connected(bus)
    assert not (await bus.publish_durable("t.work.a.health", b"1", msg_id="1")).duplicate


async def test_a_publish_that_timed_out_may_be_stored_and_its_id_settles_it(world: World, bus: Bus) -> None:
    """The answer is lost; the same id published again tells."""
    async with world.losing_replies():
        with pytest.raises(BusTimeout):
            await bus.publish_durable("t.events.a", b"1", msg_id="1", timeout_s=0.3)
    assert (await bus.publish_durable("t.events.a", b"1", msg_id="1", timeout_s=5)).duplicate


async def test_a_call_that_is_cancelled_at_any_turn_of_its_way_ends_cancelled(bus: Bus) -> None:
    swallowed = []
    for turns in range(1, 30):
        for name, call in (
            ("publish", bus.publish_durable("t.events.a", b"1", msg_id=f"c{turns}")),
            ("last", bus.last_message("T_EVENTS", "t.events.a")),
            ("request", bus.request("t.nobody", b"", timeout_s=1.0)),
        ):
            task = asyncio.ensure_future(call)
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.done() and task.cancel():
                await asyncio.wait({task})
                if not task.cancelled():
                    swallowed.append((name, turns))
            elif not task.cancelled():
                task.exception()
    assert not swallowed


@pytest.mark.slow
async def test_a_hung_server_is_noticed_and_left(tmp_path: Path) -> None:
    world = NatsWorld(tmp_path)
    await world.start()
    try:
        bus = await world.connect()
        world.pause()
        await until(lambda: not bus.status.connected, 15)
        with pytest.raises(BusUnavailable):
            await bus.publish("t.core.a", b"x")
        world.resume()
        await until(lambda: bus.status.connected, 15)
        await bus.publish("t.core.a", b"x")
    finally:
        world.resume()
        await world.close()


async def test_connecting_to_nobody_says_so_within_its_time() -> None:
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1 within 0\.5 s"):
        await JetStreamBus.connect("nats://user:secret@127.0.0.1:1", name="t", rng=random.Random(1), timeout_s=0.5)


async def test_the_memory_bus_loses_messages_and_publishes_to_order() -> None:
    server = MemoryServer()
    bus = server.connect()
    await bus.ensure_streams(SPECS)
    server.faults.timeout_scale = 0
    server.faults.lost_publishes = 1
    with pytest.raises(BusTimeout):
        await bus.publish_durable("t.events.a", b"1", msg_id="1")
    assert not (await bus.publish_durable("t.events.a", b"1", msg_id="1")).duplicate
    server.faults.refused_publishes = 1
    with pytest.raises(StreamRefused):
        await bus.publish_durable("t.events.a", b"2", msg_id="2")
    server.faults.dropped_ratio = 0.5
    async with bus.subscribe("t.core.a") as heard:
        for _ in range(200):
            await bus.publish("t.core.a", b"x")
        assert 50 < len(await drained(heard)) < 150


async def test_the_memory_bus_tells_its_readers_in_the_order_in_which_they_came() -> None:
    """So that a simulation with the same seed has the same history."""
    bus = MemoryServer().connect()
    await bus.ensure_streams(SPECS)
    told: list[int] = []

    async def reads(number: int) -> None:
        async with bus.read("T_EVENTS", follow=True) as events:
            await anext(events)
            told.append(number)

    readers = [asyncio.create_task(reads(number)) for number in range(50)]
    await asyncio.sleep(0)
    await bus.publish_durable("t.events.a", b"1", msg_id="1")
    await asyncio.gather(*readers)
    assert told == list(range(50))
