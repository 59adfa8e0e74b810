"""Time is passed in: a `Clock` tells what time it is; sleeping is `asyncio.sleep`, whose clock belongs to the event loop."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time, always as an aware datetime in UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved: for tests of decisions and shells."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Moves on by `by`, which is not negative, and returns the new time."""
        if by < timedelta(0):
            raise ValueError(f"a clock does not go back (advance by {by})")
        self._now += by
        return self._now
