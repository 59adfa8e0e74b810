"""The driver's tracepoints beside the kernel's log: a fault that only they saw is told too.

The kernel's line says more (the GPU instance, the process) and is read within a millisecond, so what a tracepoint saw
waits a second for it. Where the log told of it meanwhile there is nothing left to say.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import NoReturn

import structlog

from navarch_agent.kernel import KernelWatch
from navarch_agent.log.base import KernelLog, KernelLogUnavailable, KernelRecord
from navarch_agent.witnesses import TRACEPOINT

log = structlog.get_logger("navarch.agent.tracepoints")


class SecondWitness:
    """Reads `tracepoints` for ever. A machine without them is the usual case: that is said once, and no more."""

    HOLD_S = 1.0
    RETRY_S = 60.0
    """A driver may be loaded long after the agent began."""
    HELD_MAX = 1024

    def __init__(self, tracepoints: KernelLog, kernel: KernelWatch) -> None:
        self._tracepoints = tracepoints
        self._kernel = kernel

    async def run(self) -> None:
        held: asyncio.Queue[tuple[float, KernelRecord]] = asyncio.Queue(self.HELD_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(held), name="tracepoints:read")
            tasks.create_task(self._tell(held), name="tracepoints:tell")

    async def _read(self, held: asyncio.Queue[tuple[float, KernelRecord]]) -> NoReturn:
        loop, reason = asyncio.get_running_loop(), ""
        await self._kernel.identified()
        while True:
            try:
                async with aclosing(self._tracepoints.records()) as records:
                    async for record in records:
                        self._kernel.count_lost(record)
                        await held.put((loop.time() + self.HOLD_S, record))
            except KernelLogUnavailable as error:
                if str(error) != reason:
                    reason = str(error)
                    log.info("no tracepoints: the kernel's log is the only witness", why=reason)
            await asyncio.sleep(self.RETRY_S)

    async def _tell(self, held: asyncio.Queue[tuple[float, KernelRecord]]) -> NoReturn:
        while True:
            due_s, record = await held.get()
            await asyncio.sleep(max(due_s - asyncio.get_running_loop().time(), 0.0))
            self._kernel.witnessed(record, TRACEPOINT)
