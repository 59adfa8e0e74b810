"""Silence that many share, told once: however many copies hear it, and however long it lasts. Pure.

An alarm is a record while it stands. Whoever commits it first tells of it; the others find it there. It is raised when its
cause has lasted for a while, since silence comes in over a heartbeat's interval and what looks like the fleet at first may
turn out to be one zone; and it is taken back when its cause has been away for a while, so that copies which hear
differently do not tell of it in turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from navarch_common.model.health import AlarmRecord

QUIET: Final = timedelta(minutes=5)
"""So long the cause of an alarm must be away before it may be raised again."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Write the record; tell of it where it is new."""

    name: str
    record: AlarmRecord
    tell: bool


class Causes:
    """Since when each cause has been there, or has been away, as far as this copy has heard."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._seen: dict[str, datetime] = {}

    def note(self, wanted: Mapping[str, str], now: datetime) -> None:
        """`wanted`: the sentence of each cause that is there now."""
        for name in wanted:
            self._since.setdefault(name, now)
            self._seen[name] = now
        for name in [name for name in self._since if name not in wanted]:
            del self._since[name]

    def due(
        self, wanted: Mapping[str, str], known: Mapping[str, AlarmRecord], now: datetime, timeout: timedelta
    ) -> list[Raise]:
        """What is to be written. `timeout` is the heartbeats'."""
        found = [
            Raise(name, AlarmRecord(name=name, active=True, reason=text[:1024], since=now), tell=True)
            for name, text in sorted(wanted.items())
            if not _is_active(known.get(name)) and now - self._since.get(name, now) >= timeout / 3
        ]
        for name, record in sorted(known.items()):
            away = now - max(self._seen.get(name, record.since), record.since)
            if record.active and name not in wanted and away >= max(timeout, QUIET):
                found.append(Raise(name, structs.replace(record, active=False, since=now), tell=False))
        return found


def _is_active(record: AlarmRecord | None) -> bool:
    return record is not None and record.active
