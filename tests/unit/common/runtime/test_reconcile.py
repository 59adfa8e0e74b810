import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from navarch_common.clock import ManualClock
from navarch_common.errors import NavarchError
from navarch_common.metrics import Metrics
from navarch_common.reconcile import Reconciler, Step

HOUR = timedelta(hours=1)


def reconciler(step: Step, period: timedelta = HOUR, **options: float) -> Reconciler:
    return Reconciler("test", step, period, ManualClock(), Metrics(), **options)


@asynccontextmanager
async def running(made: Reconciler) -> AsyncIterator[None]:
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_the_first_step_begins_at_once_and_its_result_is_shown() -> None:
    async def step() -> dict[str, int]:
        return {"pools": 2}

    made = reconciler(step)
    async with running(made):
        await until(lambda: made.last is not None)
    assert made.last is not None
    assert (made.last.outcome, made.last.counts, made.last.failures) == ("done", {"pools": 2}, 0)


async def test_many_signals_during_a_step_cause_one_more_step() -> None:
    steps = 0
    go_on = asyncio.Event()

    async def step() -> None:
        nonlocal steps
        steps += 1
        await go_on.wait()

    made = reconciler(step)
    async with running(made):
        await until(lambda: steps == 1)
        for _ in range(10):
            made.wake()
        await asyncio.sleep(0.01)
        assert steps == 1
        go_on.set()
        await until(lambda: steps == 2)
        await asyncio.sleep(0.02)
    assert steps == 2


async def test_without_a_signal_the_period_brings_the_next_step() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1

    async with running(reconciler(step, timedelta(milliseconds=10))):
        await until(lambda: steps >= 3)


async def test_a_failed_step_is_counted_and_tried_again_though_nothing_wakes_it() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            raise NavarchError("the store is away")
        if steps == 2:
            raise ZeroDivisionError

    made = reconciler(step, timedelta(milliseconds=20))
    async with running(made):
        await until(lambda: made.last is not None)
        assert made.last is not None
        assert (made.last.outcome, made.last.error, made.last.failures) == ("failed", "the store is away", 1)
        await until(lambda: steps >= 3 and made.last is not None and made.last.outcome == "done")
    assert made.last is not None
    assert made.last.failures == 0


async def test_a_broken_step_does_not_spin_however_often_it_is_woken() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        raise NavarchError("broken")

    made = reconciler(step)
    async with running(made):
        for _ in range(50):
            made.wake()
            await asyncio.sleep(0.002)
    assert steps == 1


async def test_a_step_that_hangs_is_cut_off() -> None:
    async def step() -> None:
        await asyncio.sleep(3600)

    made = reconciler(step, step_limit_s=0.02)
    async with running(made):
        await until(lambda: made.last is not None)
    assert made.last is not None
    assert "not done after" in made.last.error


async def test_cancelling_ends_it_in_the_middle_of_a_step() -> None:
    cleaned = False

    async def step() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned = True

    async with running(reconciler(step)):
        await asyncio.sleep(0.01)
    assert cleaned
