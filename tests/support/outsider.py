"""Somebody else's program: a durable consumer of Navarch's events, in plain nats-py, that acknowledges what it has noted."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.api import ConsumerConfig
from nats.js.errors import Error as JetStreamError

from navarch_common.events.subjects import Subjects

DURABLE = "outsider"


class Outsider:
    """What it was told, in the order in which it was told; `at` is this process's monotonic clock."""

    def __init__(self, nats_url: str, prefix: str) -> None:
        self._servers, self._subjects = nats_url.split(","), Subjects(prefix)
        self.heard: list[tuple[float, dict[str, Any]]] = []

    @property
    def ids(self) -> set[str]:
        return {str(event["id"]) for _, event in self.heard}

    def failures(self) -> dict[str, float]:
        """When it first heard of each node's failure."""
        first: dict[str, float] = {}
        for at, event in self.heard:
            if event["type"] == "node.failed.v1":
                first.setdefault(str(event["node"]), at)
        return first

    async def run(self) -> None:
        """Until cancelled. A connection that makes trouble is given up for another one."""
        while True:
            with suppress(nats.errors.Error, JetStreamError, OSError, TimeoutError):
                client = await nats.connect(
                    self._servers, connect_timeout=1, max_reconnect_attempts=3, reconnect_time_wait=0.2, ping_interval=2,
                    max_outstanding_pings=2, error_cb=_ignore,
                )  # fmt: skip
                try:
                    await self._listen(client)
                finally:
                    with suppress(nats.errors.Error, OSError, TimeoutError):
                        async with asyncio.timeout(2):
                            await client.close()
            await asyncio.sleep(0.2)

    async def _listen(self, client: Client) -> None:
        stream = client.jetstream(timeout=2)
        events = await stream.pull_subscribe(
            self._subjects.events,
            durable=DURABLE,
            stream=self._subjects.stream("EVENTS"),
            config=ConsumerConfig(ack_wait=5),
        )
        idle = 0
        while client.is_connected and idle < 20:
            try:
                messages = await events.fetch(100, timeout=1, heartbeat=0.4)
            except TimeoutError:
                idle += 1
                continue
            idle = 0
            for message in messages:
                self.heard.append((time.monotonic(), json.loads(message.data)))
                await message.ack()


async def _ignore(_: Exception) -> None:
    """Reconnecting is the client's business."""


@asynccontextmanager
async def outsider(nats_url: str, prefix: str) -> AsyncIterator[Outsider]:
    made = Outsider(nats_url, prefix)
    running = asyncio.create_task(made.run(), name="outsider")
    try:
        yield made
    finally:
        while not running.done():  # nats-py's waits may swallow a cancellation
            running.cancel()
            await asyncio.wait({running}, timeout=1)
