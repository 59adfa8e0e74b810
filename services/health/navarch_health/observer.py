"""How well this process hears. Verdicts from silence are suspended until it has heard without a break for a whole
timeout: since its own start, since the bus was away or dropped messages, since the event loop stood still, since the
clock jumped. Each copy of the service judges its own ears only.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from navarch_common.bus.base import BusStatus


class Observer:
    """Tells until when silence means nothing, and why. `note` is called each tick and is the only input."""

    def __init__(self, started_at: datetime, monotonic_s: float, patience: timedelta, *, tick_s: float) -> None:
        self._patience = patience
        self._tick_s = tick_s
        self._wall = started_at
        self._monotonic_s = monotonic_s
        self._bus: BusStatus | None = None
        self._until = started_at + patience
        self._why = "this process has just started"
        self._code = "start"

    @property
    def patience(self) -> timedelta:
        """A whole heartbeat timeout: so long must hearing be unbroken."""
        return self._patience

    @patience.setter
    def patience(self, patience: timedelta) -> None:
        self._until += patience - self._patience
        self._patience = patience

    def note(self, now: datetime, monotonic_s: float, bus: BusStatus) -> None:
        """Looks at the clocks and the bus. `tick_s` apart at best; what is much later is a stall of the event loop."""
        passed_s = monotonic_s - self._monotonic_s
        drift_s = (now - self._wall).total_seconds() - passed_s
        self._wall, self._monotonic_s = now, monotonic_s
        if abs(drift_s) > max(1.0, self.patience.total_seconds() / 10):
            self._upset(now, "clock", f"the wall clock jumped by {drift_s:+.1f} s")
        if passed_s > self._tick_s + self.stall_limit_s:
            self._upset(now, "stall", f"this process stood still for {passed_s - self._tick_s:.1f} s")
        before, self._bus = self._bus, bus
        if not bus.connected:
            self._upset(now, "bus", "the bus is not connected")
        elif before is not None:
            self._compare(now, before, bus)

    @property
    def stall_limit_s(self) -> float:
        """A third of a timeout: shorter pauses cost no heartbeat, since messages wait in the socket."""
        return max(1.0, self.patience.total_seconds() / 3)

    def deaf(self, now: datetime) -> str:
        """Why silence means nothing now; empty where it does mean something."""
        return f"{self._why} (verdicts from silence are suspended)" if now < self._until else ""

    def code(self, now: datetime) -> str:
        """The same in one word, for a metric's label."""
        return self._code if now < self._until else ""

    @property
    def heard_since(self) -> datetime:
        """Since when nothing has disturbed it."""
        return self._until - self.patience

    @property
    def suspended_until(self) -> datetime:
        return self._until

    def _compare(self, now: datetime, before: BusStatus, bus: BusStatus) -> None:
        if bus.disconnects > before.disconnects or not before.connected:
            self._upset(now, "bus", "the bus was not connected")
        if bus.dropped > before.dropped:
            self._upset(now, "dropped", f"{bus.dropped - before.dropped} messages were dropped here, being too slow")
        if bus.errors > before.errors:
            self._upset(now, "bus", f"the bus told of {bus.errors - before.errors} errors")

    def _upset(self, now: datetime, code: str, why: str) -> None:
        self._until = now + self.patience
        self._code, self._why = code, why
