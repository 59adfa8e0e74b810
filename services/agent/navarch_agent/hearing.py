"""Hears a subject for as long as the process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NoReturn

from navarch_common.bus.base import Bus, BusError, BusMessage, BusUnavailable

Handler = Callable[[BusMessage], Awaitable[None]]

RETRY_S = 1.0
PENDING_MAX = 1024


async def hear(bus: Bus, subject: str, handler: Callable[[BusMessage], Handler | None]) -> NoReturn:
    """Pass every message on `subject` to the handler that `handler` names for it, one at a time.

    Subscribes again and again where the bus is not there yet: an agent outlives its control plane. Raises
    `BusUnavailable` when the connection was closed for good.
    """
    while True:
        async with AsyncExitStack() as stack:
            try:
                messages = await stack.enter_async_context(bus.subscribe(subject, pending_max=PENDING_MAX))
            except BusError:
                await asyncio.sleep(RETRY_S)
                continue
            async for message in messages:
                if handle := handler(message):
                    await handle(message)
            raise BusUnavailable(f"the connection was closed under the subscription to {subject}")
