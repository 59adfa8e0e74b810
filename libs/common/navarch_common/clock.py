"""Time is passed in: a `Clock` tells what time it is; sleeping is `asyncio.sleep`, whose clock belongs to the event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from navarch_common.errors import NavarchError

log = structlog.get_logger(__name__)


class Clock(Protocol):
    """Tells the time, always as an aware datetime in UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ServerClock:
    """The store's time, which all processes share: asked for now and then, and counted on by the event loop's own clock.

    Deadlines and heartbeats are written by one process and judged by another, so they must not depend on whose wall clock
    is right: one replica whose clock is an hour ahead would hide a silent machine for an hour, or give up every machine
    that boots.
    """

    ANCHOR_EVERY_S = 10.0
    ANSWER_MAX_S = 1.0
    """An answer that took longer could be off by half of that: it anchors nothing."""

    def __init__(self, ask: Callable[[], Awaitable[datetime]]) -> None:
        """`ask` is `StateStore.now`."""
        self._ask = ask
        self._base: datetime | None = None
        self._base_s = 0.0

    def now(self) -> datetime:
        """What time it is at the store. Only after `anchor`, and within the event loop that it ran in."""
        assert self._base is not None, "the clock was not anchored"
        return self._base + timedelta(seconds=asyncio.get_running_loop().time() - self._base_s)

    async def anchor(self) -> bool:
        """Asks the store. False where its answer took too long to be of use: but the first one is better than none.

        Raises what the store raises.
        """
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        told = await self._ask()
        took_s = loop.time() - asked_s
        if took_s > self.ANSWER_MAX_S and self._base is not None:
            return False
        self._base, self._base_s = told + timedelta(seconds=took_s / 2), loop.time()
        return True

    async def run(self) -> None:
        """Asks again now and then, until cancelled: clocks drift, and a suspended machine's stand still."""
        while True:
            await asyncio.sleep(self.ANCHOR_EVERY_S)
            try:
                async with asyncio.timeout(self.ANCHOR_EVERY_S):
                    await self.anchor()
            except (NavarchError, TimeoutError) as error:
                log.debug("the store's time was not told", error=str(error))


class ManualClock:
    """A clock that stands still until it is moved: for tests of decisions and shells."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Moves on by `by`, which is not negative, and returns the new time."""
        if by < timedelta(0):
            raise ValueError(f"a clock does not go back (advance by {by})")
        self._now += by
        return self._now
