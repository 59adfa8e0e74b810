"""An asyncio event loop whose time is virtual and whose order is the seed's.

Nothing waits: when no callback is ready, time jumps to the next timer. What is ready at one instant runs in an order
drawn from the seed, so that every run of a seed is the same and different seeds interleave differently. There is no
selector, no thread and no signal; work for an executor is done at once, where it stands.
"""

import asyncio
import gc
import heapq
import random
import sys
import warnings
from asyncio import base_events
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar

from navarch_sim.virtual.process import OWNER

T = TypeVar("T")

CALLBACKS_AT_ONE_INSTANT_MAX = 1_000_000
"""More callbacks without time passing are a loop that will never end."""
_CANCELLED_MIN, _CANCELLED_RATIO = 100, 0.5
"""When so many timers are cancelled, and so large a part of all, they are taken out of the heap."""


class Livelock(Exception):
    """Callbacks run on and on, and no time passes."""


class SimHandle(asyncio.Handle):
    """A callback that is ready. As asyncio's own, without what is for debugging."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: "SimLoop", context: Context | None
    ) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # as the base class does


class SimTimer(asyncio.TimerHandle):
    """A callback that is due at some time. As asyncio's own, without what is for debugging."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "SimLoop",
        context: Context | None,
    ) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None
        self._when, self._scheduled = when, True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # as the base class does
            if self._scheduled:
                self._loop.timers_cancelled += 1


class _Due(float):
    """When a timer is due, as the heap holds it: compared as a number is."""

    __slots__ = ("timer",)
    timer: SimTimer


class SimTask(asyncio.Task[T]):
    """A task that hashes by its number: sets of tasks, which asyncio itself keeps and walks, have the same order in
    every run."""

    def __init__(self, work: Coroutine[Any, Any, T], loop: "SimLoop", context: Context | None) -> None:
        loop.tasks_made += 1
        self._number = loop.tasks_made
        super().__init__(work, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


class SimLoop(base_events.BaseEventLoop):
    """Seeded and virtual. One for each run of a seed."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._due: list[_Due] = []
        self.timers_cancelled = 0
        """So many of those in the heap."""
        self.tasks_made = 0
        self._at_instant = 0
        self.callbacks = 0
        """Callbacks run in all: the number of steps that the world has taken."""
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now

    # The three below take any arguments, where typeshed's ties them to the callback's own.

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = SimHandle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]  # private to the base class
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        due = _Due(when)
        due.timer = SimTimer(when, callback, args, self, context)
        heapq.heappush(self._due, due)
        return due.timer

    def run_in_executor(  # type: ignore[override]  # a future at once, which awaits as the base class's does
        self,
        executor: Any,  # noqa: ARG002 - the base class says so
        func: Callable[..., T],
        *args: Any,
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's, as from a real executor
            future.set_exception(error)
        return future

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,  # noqa: ARG002 - asyncio says so
        work: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: Context | None = None,
    ) -> "asyncio.Task[T]":
        return SimTask(work, self, context)  # type: ignore[arg-type]  # a generator is one of old

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _run_once(self) -> None:
        """All that is ready now, in the seed's order; where nothing is, the next instant at which something will be."""
        batch = self._next_batch()
        self._at_instant += len(batch)
        if self._at_instant > CALLBACKS_AT_ONE_INSTANT_MAX:
            raise Livelock(f"{self._at_instant} callbacks at {self._now:.3f} s, and time stands still")
        if len(batch) > 1:
            self._rng.shuffle(batch)
        self.callbacks += len(batch)
        for handle in batch:
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)  # type: ignore[attr-defined]  # private to Handle
            if owner is None or owner.free or owner.takes(handle):
                handle._run()

    def _next_batch(self) -> list[asyncio.Handle]:
        ready, timers = self._ready, self._due  # type: ignore[attr-defined]  # private to the base class
        self._drop_cancelled_timers()
        if not ready:
            if not timers:
                raise Livelock(f"nothing is left to happen after {self._now:.3f} s")
            if timers[0] > self._now:
                self._now, self._at_instant = float(timers[0]), 0
        now = self._now
        while timers and timers[0] <= now:
            timer = heapq.heappop(timers).timer
            timer._scheduled = False
            ready.append(timer)
        batch = list(ready)
        ready.clear()
        return batch

    def _drop_cancelled_timers(self) -> None:
        timers = self._due
        if self.timers_cancelled > _CANCELLED_MIN and self.timers_cancelled > len(timers) * _CANCELLED_RATIO:
            for due in timers:
                if due.timer._cancelled:
                    due.timer._scheduled = False
            timers[:] = [due for due in timers if due.timer._scheduled]
            heapq.heapify(timers)
            self.timers_cancelled = 0
            return
        while timers and timers[0].timer._cancelled:
            self.timers_cancelled -= 1
            heapq.heappop(timers).timer._scheduled = False


def abandon(loop: SimLoop) -> None:
    """The end of a world: whatever still waits in it is dropped, and nothing of it runs any more.

    It must be collected before another world begins: a coroutine that is dropped in the middle runs its `finally`, and
    would do so in the middle of that other world. `no_collections` sees to it.
    """
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # private to Task
    loop.set_exception_handler(lambda _, __: None)
    loop.close()


@contextmanager
def no_collections() -> Iterator[None]:
    """Garbage is collected when a world is over and not while it runs: a finalizer is a callback that no seed decides."""
    before = sys.unraisablehook
    gc.disable()
    try:
        yield
    finally:
        # Coroutines that are dropped in the middle complain of it, each in its own way.
        sys.unraisablehook = lambda _: None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* was never awaited")
            gc.collect()
        sys.unraisablehook = before
        gc.enable()
