"""A process of the simulated world: everything that runs in its context, until it is killed.

Killing is `kill -9`: no callback of the process runs again, no `finally`, no goodbye; what it had sent is on its way all
the same. Stalling is `SIGSTOP`: its callbacks wait until it is resumed, timers that came due meanwhile first of all.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

OWNER: ContextVar["SimProcess | None"] = ContextVar("navarch_sim_process", default=None)
"""Whose code runs. The loop looks it up in each callback's context."""


class SimProcess:
    """One life of one process."""

    __slots__ = ("_fuse", "_stalled", "context", "dead", "free", "held", "instance", "name", "on_fuse", "tasks")

    def __init__(self, name: str, instance: str, on_fuse: Callable[[], None]) -> None:
        """`on_fuse` is called when a fuse that was lit has burnt down."""
        self.name, self.instance, self.on_fuse = name, instance, on_fuse
        self.dead = self._stalled = False
        self._fuse: int | None = None
        self.free = True
        """Nothing is special about it: its callbacks just run."""
        self.held: list[asyncio.Handle] = []
        """Callbacks that became due while it was stalled, in that order."""
        self.tasks: list[asyncio.Task[Any]] = []
        """Kept, so that nothing of a dead process is cleaned up, and thereby run, while the world goes on."""
        self.context: Context = copy_context()
        self.context.run(OWNER.set, self)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Runs `work` as this process. Everything that it starts is this process too."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=self.context)
        self.tasks.append(task)
        return task

    @property
    def stalled(self) -> bool:
        return self._stalled

    def kill(self) -> None:
        self.dead, self.free = True, False
        self.held.clear()

    def light_fuse(self, callbacks: int) -> None:
        """It runs so many callbacks more: death between any two awaits."""
        self._fuse, self.free = callbacks, False

    def stamp_out(self) -> None:
        """A fuse that burns is put out."""
        self._fuse = None
        self.free = not (self.dead or self._stalled)

    def stall(self) -> None:
        self._stalled, self.free = True, False

    def resume(self) -> None:
        """Goes on where it stood still."""
        self._stalled = False
        self.free = not self.dead and self._fuse is None
        held, self.held = self.held, []
        loop = asyncio.get_running_loop()
        for handle in held:
            if not handle.cancelled():
                loop._ready.append(handle)  # type: ignore[attr-defined]

    def takes(self, handle: asyncio.Handle) -> bool:
        """Whether a callback of a process that is not free runs now."""
        if self.dead:
            return False
        if self._stalled:
            self.held.append(handle)
            return False
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse <= 0:
                self.stamp_out()
                self.on_fuse()
                return False
        return True
