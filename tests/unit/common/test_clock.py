"""Time as all processes share it."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from navarch_common.clock import ServerClock
from navarch_common.store.base import StoreUnavailable
from navarch_sim.virtual.loop import SimLoop

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """A store that knows the time, `ahead` of the loop, and takes `delay_s` to say so."""

    def __init__(self) -> None:
        self.ahead, self.delay_s = timedelta(0), 0.0
        self.away = False

    async def now(self) -> datetime:
        if self.away:
            raise StoreUnavailable("told to be away")
        told = T0 + self.ahead + timedelta(seconds=asyncio.get_running_loop().time())
        await asyncio.sleep(self.delay_s)
        return told


@pytest.fixture
def loop() -> SimLoop:
    return SimLoop(random.Random(1))


def test_it_tells_the_servers_time_and_counts_on_by_the_loops_own(loop: SimLoop) -> None:
    async def story() -> list[float]:
        server, told = Server(), []
        server.ahead = timedelta(hours=1)
        clock = ServerClock(server.now)
        await clock.anchor()
        for _ in range(3):
            told.append((clock.now() - T0).total_seconds())
            await asyncio.sleep(5.0)
        return told

    assert loop.run_until_complete(story()) == [3600.0, 3605.0, 3610.0]


def test_the_time_that_an_answer_took_is_shared_between_both_ways(loop: SimLoop) -> None:
    async def story() -> float:
        server = Server()
        server.delay_s = 0.5
        clock = ServerClock(server.now)
        await clock.anchor()
        return (clock.now() - T0).total_seconds() - asyncio.get_running_loop().time()

    assert loop.run_until_complete(story()) == pytest.approx(-0.25)


def test_a_slow_answer_moves_nothing_once_there_was_a_better_one(loop: SimLoop) -> None:
    async def story() -> tuple[bool, float]:
        server = Server()
        clock = ServerClock(server.now)
        await clock.anchor()
        server.delay_s = 3.0
        took = await clock.anchor()
        return took, (clock.now() - T0).total_seconds() - asyncio.get_running_loop().time()

    assert loop.run_until_complete(story()) == (False, pytest.approx(0.0))


def test_it_asks_again_and_goes_on_counting_while_nobody_answers(loop: SimLoop) -> None:
    async def story() -> list[float]:
        server, told = Server(), []
        clock = ServerClock(server.now)
        await clock.anchor()
        asking = asyncio.create_task(clock.run())
        server.away, server.ahead = True, timedelta(minutes=1)
        await asyncio.sleep(25.0)
        told.append((clock.now() - T0).total_seconds())
        server.away = False
        await asyncio.sleep(25.0)
        told.append((clock.now() - T0).total_seconds())
        asking.cancel()
        return told

    assert loop.run_until_complete(story()) == [25.0, 110.0]
