"""The port to whatever knows the demand of pools: a queue, a scheduler, a query."""

from datetime import datetime
from typing import Protocol

from navarch_autoscaler.strategies.base import Demand


class MetricsSource(Protocol):
    """Knows how much is queued. Wakes the autoscaler when it learns something."""

    async def run(self) -> None:
        """Listens or asks until cancelled. What cannot be used is counted and told of, and stops nothing."""
        ...

    def demand(self, pool: str, now: datetime) -> Demand | None:
        """What is queued for `pool`; None where nobody fresh has said anything: unknown, not zero."""
        ...
