"""Virtual time, the seed's order, and processes that are killed and stalled in it."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from navarch_sim.virtual.loop import Livelock, SimLoop, abandon, no_collections
from navarch_sim.virtual.process import SimProcess


def run(work: Coroutine[Any, Any, Any], seed: int = 1) -> Any:
    loop = SimLoop(random.Random(seed))
    with no_collections():
        try:
            return loop.run_until_complete(work)
        finally:
            abandon(loop)


def _nothing() -> None:
    """A fuse that burns down without a bang."""


def test_a_day_passes_at_once() -> None:
    async def day() -> float:
        for _ in range(24):
            await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time()

    assert run(day()) == 86_400.0


def test_timeouts_come_when_their_time_has_come() -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(wait()) == 30.0


async def _order() -> list[int]:
    done: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(1.0)
        done.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(one(number))
    return done


def test_the_same_seed_has_the_same_order() -> None:
    assert run(_order(), seed=7) == run(_order(), seed=7)


def test_different_seeds_have_different_orders() -> None:
    assert len({tuple(run(_order(), seed=seed)) for seed in range(5)}) == 5


def test_work_for_a_thread_is_done_where_it_stands() -> None:
    async def ask() -> int:
        return await asyncio.to_thread(lambda: 42)

    assert run(ask()) == 42


def test_callbacks_that_never_let_time_pass_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navarch_sim.virtual.loop.CALLBACKS_AT_ONE_INSTANT_MAX", 1000)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run(spin())


def test_waiting_for_what_cannot_come_is_an_error_and_not_a_hang() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Livelock):
        run(wait())


async def _counting(counted: list[float]) -> None:
    try:
        while True:
            await asyncio.sleep(1.0)
            counted.append(asyncio.get_running_loop().time())
    finally:
        counted.append(-1.0)


def test_a_killed_process_does_nothing_more_not_even_tidy_up() -> None:
    async def story() -> list[float]:
        counted: list[float] = []
        process = SimProcess("one", "one-1", _nothing)
        process.start(_counting(counted), "counting")
        await asyncio.sleep(3.5)
        process.kill()
        await asyncio.sleep(60.0)
        return list(counted)

    assert run(story()) == [1.0, 2.0, 3.0]


def test_a_stalled_process_stands_still_while_time_goes_on_and_then_goes_on_itself() -> None:
    async def story() -> list[float]:
        counted: list[float] = []
        process = SimProcess("one", "one-1", _nothing)
        process.start(_counting(counted), "counting")
        await asyncio.sleep(2.5)
        process.stall()
        await asyncio.sleep(20.0)
        process.resume()
        await asyncio.sleep(1.2)
        return list(counted)

    assert run(story()) == [1.0, 2.0, 22.5, 23.5]


def test_a_fuse_kills_between_any_two_awaits() -> None:
    async def story(steps: int) -> int:
        done: list[int] = []

        async def work() -> None:
            for number in range(10):
                await asyncio.sleep(0)
                done.append(number)

        def burn() -> None:
            process.kill()

        process = SimProcess("one", "one-1", burn)
        process.light_fuse(steps)
        process.start(work(), "work")
        await asyncio.sleep(1.0)
        return len(done)

    assert [run(story(steps)) for steps in (1, 2, 4, 11)] == [0, 0, 2, 9]


def test_what_a_process_starts_dies_with_it() -> None:
    async def story() -> list[str]:
        said: list[str] = []

        async def child() -> None:
            await asyncio.sleep(2.0)
            said.append("child")

        async def parent() -> None:
            asyncio.get_running_loop().call_later(2.0, said.append, "timer")
            await asyncio.create_task(child())

        process = SimProcess("one", "one-1", _nothing)
        process.start(parent(), "parent")
        await asyncio.sleep(1.0)
        process.kill()
        await asyncio.sleep(5.0)
        return list(said)

    assert run(story()) == []
