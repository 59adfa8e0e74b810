"""What lies between a process and everything else: how long it takes, and what gets lost on the way.

`Air` holds the conditions of the moment; the storm changes them. What was sent arrives or not whatever becomes of the
sender: it travels in the world's context, not in the sender's.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from navarch_common.bus.base import Delivery

T = TypeVar("T")

WORLD = Context()
"""The context of what belongs to no process."""


def later(delay_s: float, act: Callable[..., object], *args: object) -> asyncio.TimerHandle:
    """The world does `act` after `delay_s`, whoever asked for it."""
    return asyncio.get_running_loop().call_later(delay_s, act, *args, context=WORLD)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise AssertionError("a step of the world had to wait")


SLOW_RATIO = 0.3
"""Of all ways, those that take any time at all."""


@dataclass(slots=True)
class Air:
    """Ratios are chances for each message or call."""

    rng: random.Random
    met: Callable[[str], None]
    """Told of each fault that struck, by its name."""
    latency_s: float = 0.0
    """Mean of one way. Most go through at once, which still lets others run; the few that don't take long."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Of core messages, those that are held back for up to `held_back_s`, while later ones pass."""
    held_back_s: float = 2.0
    lost_request: float = 0.0
    """Of durable publishes, commits and KV writes: never arrived, and nobody says so."""
    lost_reply: float = 0.0
    """Of the same: done, and nobody says so."""
    lost_ack: float = 0.0
    late_request: float = 0.0
    """Of commits: on their way for up to `request_late_s`, so that they arrive when their sender has given them up."""
    request_late_s: float = 12.0
    late_ack: float = 0.0
    """Acknowledgements held back for up to `ack_late_s`: long enough that the message was delivered again meanwhile."""
    ack_late_s: float = 60.0
    delivered: list[Callable[[str], None]] = field(default_factory=list)
    """Told the subject of each message that a process takes off a stream, in that process."""
    acknowledged: list[Callable[[Delivery], None]] = field(default_factory=list)
    """Told of each message that a process says it is done with, whatever becomes of its word."""

    @property
    def calm(self) -> bool:
        """Nothing is lost, late or slow."""
        return not (
            self.latency_s or self.loss or self.duplication or self.reordering or self.lost_request or self.lost_reply
        )

    def travel_s(self) -> float:
        """How long one way takes now."""
        if not self.latency_s or self.rng.random() >= SLOW_RATIO:
            return 0.0
        return self.rng.expovariate(SLOW_RATIO / self.latency_s)

    async def pause(self) -> None:
        """One way, for whoever waits for it. Of those that take no time, half let nobody else have a turn: as where the
        answer is in the socket already."""
        delay_s = self.travel_s()
        if delay_s or self.rng.getrandbits(1):
            await asyncio.sleep(delay_s)

    def strikes(self, ratio: float, fault: str) -> bool:
        """Whether a fault of this chance happens now."""
        if ratio <= 0 or self.rng.random() >= ratio:
            return False
        self.met(fault)
        return True

    def clear(self) -> None:
        """From now on nothing is lost; what is on its way still comes as it was sent."""
        for name in (
            "latency_s",
            "loss",
            "duplication",
            "reordering",
            "lost_request",
            "lost_reply",
            "lost_ack",
            "late_request",
            "late_ack",
        ):
            setattr(self, name, 0.0)
