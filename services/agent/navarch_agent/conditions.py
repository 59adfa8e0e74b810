"""Conditions that last: each is told when it begins, once an hour while it lasts, and when it is over. Pure.

What could not be read changes nothing: unknown is neither the one nor the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime, timedelta
from typing import Final

from navarch_common.events.messages import Observation

AGAIN: Final = timedelta(hours=1)
"""So often a condition is told again. A verdict about one clears by itself a while after it is told no more."""


Figures = Mapping[str, float | int | str | bool]
Tell = Callable[[str, Figures], Observation]
"""Makes the observation of a condition from its message and its figures."""


class Conditions:
    """The conditions of one machine that stand now."""

    def __init__(self) -> None:
        self._told: dict[Hashable, tuple[datetime, float]] = {}
        """When each was last told, and how bad it was."""

    def follow(
        self,
        key: Hashable,
        holds: bool | None,
        at: datetime,
        tell: Tell,
        message: str,
        metrics: Figures | None = None,
        *,
        amount: float = 0.0,
    ) -> list[Observation]:
        """Return what there is to tell of the condition `key`: nothing, or one observation.

        `holds` is None where that is not known. `amount` is how bad it is: a greater one is told at once.
        """
        told = self._told.get(key)
        if holds is None or (not holds and told is None):
            return []
        if not holds:
            del self._told[key]
            return [tell(f"over: {message}", {**(metrics or {}), "ended": True})]
        if told is not None and at - told[0] < AGAIN and amount <= told[1]:
            return []
        self._told[key] = (at, amount)
        return [tell(message, {**(metrics or {}), "ended": False})]

    def tell_again(self) -> None:
        """What stands is told with the next look, whoever knew of it."""
        self._told = {key: (datetime.min.replace(tzinfo=at.tzinfo), amount) for key, (at, amount) in self._told.items()}
