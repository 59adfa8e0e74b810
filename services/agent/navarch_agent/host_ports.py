"""The history of InfiniBand and RoCE ports: who is down and since when, who comes and goes, who counts errors. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from navarch_agent.host_reading import Port

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
FLAPS: Final = 5
"""So many times down within a day are flapping: the limit of Azure's node health checks."""
FLAPS_RELEASE: Final = 3
DOWNS: Final = "link_downed"
ERRORS_PER_HOUR: Final = {
    "symbol_error": 120,
    "link_error_recovery": 300,
    "local_link_integrity_errors": 1,
    "excessive_buffer_overrun_errors": 1,
}
"""From how many on errors are told: NVSentinel's limits. It allows 120 symbol errors an hour, 5 recoveries a minute, and
none of the other two."""
COUNTERS: Final = (DOWNS, *ERRORS_PER_HOUR)


class Tally:
    """Counts what happened within the last `span_s`, to a sixtieth of it."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._slots: deque[tuple[float, int]] = deque(maxlen=62)

    def add(self, amount: int, now_s: float) -> None:
        if amount <= 0:
            return
        if self._slots and now_s - self._slots[-1][0] < self._span_s / 60:
            since_s, before = self._slots.pop()
            self._slots.append((since_s, before + amount))
        else:
            self._slots.append((now_s, amount))

    def total(self, now_s: float) -> int:
        while self._slots and now_s - self._slots[0][0] > self._span_s:
            self._slots.popleft()
        return sum(amount for _, amount in self._slots)


class PortHistory:
    """One port since this process first saw it."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.was_active = False
        self.down_since_s: float | None = None
        """Set while a port that was active is not."""
        self._seen_down, self._counted_down = Tally(DAY_S), Tally(DAY_S)
        self._errors = {name: Tally(HOUR_S) for name in ERRORS_PER_HOUR}
        self._counters: dict[str, int] = {}

    def see(self, port: Port, now_s: float) -> None:
        """Take in what one look says. A state that could not be read leaves everything as it was."""
        self.port = port
        if port.state == "active":
            self.was_active, self.down_since_s = True, None
        elif port.state is not None and self.was_active and self.down_since_s is None:
            self.down_since_s = now_s
            self._seen_down.add(1, now_s)
        for name, value in port.counters.items():
            # A counter that falls was reset; what it counted since then is not known to be new.
            rise = value - self._counters.get(name, value)
            self._counters[name] = value
            if name == DOWNS:
                self._counted_down.add(rise, now_s)
            elif name in self._errors:
                self._errors[name].add(rise, now_s)

    def flaps(self, now_s: float) -> int:
        """How often it went down within a day. Between two looks only its own counter sees that."""
        return max(self._seen_down.total(now_s), self._counted_down.total(now_s))

    def errors(self, now_s: float) -> dict[str, int]:
        """Errors of the last hour, of those counters that rose."""
        totals = {name: tally.total(now_s) for name, tally in self._errors.items()}
        return {name: total for name, total in totals.items() if total}


class Ports:
    """All ports that were seen."""

    HISTORIES_MAX = 256

    def __init__(self) -> None:
        self.histories: dict[str, PortHistory] = {}

    def see(self, ports: tuple[Port, ...], now_s: float) -> None:
        """Take in one look at all of them. One that was active and is no longer listed is down like any other."""
        listed = {port.name: port for port in ports}
        for name in [name for name, history in self.histories.items() if name not in listed]:
            history = self.histories[name]
            if history.was_active:
                listed[name] = Port(name=name, state="gone", link_layer=history.port.link_layer)
            else:
                del self.histories[name]
        for name, port in listed.items():
            if name not in self.histories:
                if len(self.histories) >= self.HISTORIES_MAX:
                    continue
                self.histories[name] = PortHistory(port)
            self.histories[name].see(port, now_s)
