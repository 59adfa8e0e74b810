"""Whoever hears an agent's health reports: in health's place, over whatever bus."""

from __future__ import annotations

import asyncio
from typing import Any

from navarch_common.bus.base import Delivery
from navarch_common.events import decode
from navarch_common.events.messages import HealthReport
from navarch_common.events.subjects import Subjects


class Ears:
    """Takes health reports as their consumer does."""

    def __init__(self, bus: Any, subjects: Subjects) -> None:
        self._bus, self._subjects = bus, subjects
        self._reports: asyncio.Queue[HealthReport] = asyncio.Queue()

    async def take(self) -> None:
        stream, subject = self._subjects.stream("REPORTS"), f"{self._subjects.prefix}.reports.*.health"
        async with self._bus.consume(stream, "health", subject) as deliveries:
            async for delivery in deliveries:
                await self._took(delivery)

    async def _took(self, delivery: Delivery) -> None:
        await self._reports.put(decode(delivery.data, HealthReport))
        await delivery.ack()

    async def next(self) -> HealthReport:
        async with asyncio.timeout(20):
            return await self._reports.get()
