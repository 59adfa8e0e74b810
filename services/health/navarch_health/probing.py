"""Probes of silent nodes: a question straight to the agent, whose answer is a sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from navarch_common.bus.base import BusError
from navarch_common.events import BadMessage, decode, encode
from navarch_common.events.messages import Probe, ProbeReply
from navarch_common.run import Deps
from navarch_health.fleet import Fleet, Tracked

log = structlog.get_logger("navarch.health")

ANSWER_LIMIT_S: Final = 2.0
SIDE_BY_SIDE: Final = 32


class Probing:
    """Asks each suspect once in a timeout."""

    def __init__(self, deps: Deps, fleet: Fleet, suspects: Callable[[], frozenset[str]], pause_s: float) -> None:
        self._deps, self._fleet, self._suspects = deps, fleet, suspects
        self.pause_s = pause_s
        """Between two rounds: a third of a timeout, so that two answers fit into what counts as recent."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self.pause_s)

    async def round(self) -> None:
        """Asks every suspect once, side by side."""
        gate = asyncio.Semaphore(SIDE_BY_SIDE)
        tracked = [self._fleet.tracked[name] for name in sorted(self._suspects()) if name in self._fleet.tracked]
        async with asyncio.TaskGroup() as tasks:
            for one in tracked:
                tasks.create_task(self._probe(one, gate), name=f"health-probe-{one.node}")

    async def _probe(self, tracked: Tracked, gate: asyncio.Semaphore) -> None:
        async with gate:
            now = tracked.probed_at = self._deps.clock.now()
            question = encode(Probe(node=tracked.node, at=now))
            try:
                answer = await self._deps.bus.request(
                    self._deps.subjects.probe(tracked.node), question, timeout_s=ANSWER_LIMIT_S
                )
                reply = decode(answer.data, ProbeReply)
            except BusError:
                return  # no answer is no sign of life, and no proof of the contrary
            except BadMessage as error:
                log.info("a probe's answer cannot be used", node=tracked.node, error=str(error))
                return
        if (reply.node, reply.generation) == (tracked.node, tracked.generation):
            tracked.answered_at = self._deps.clock.now()
