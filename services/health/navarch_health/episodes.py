"""Episodes: all that was seen of one entity and one code, folded, so that thresholds count faults and not lines.

A driver that fails prints bursts: the same Xid many times within seconds. Lines of one entity and code that lie at
most `FOLD` apart are one episode (5 s is the coalescing window of "Story of Two GPUs", SC'25). Folding the same line
twice changes nothing, and the order in which lines come does not matter, because reports are redelivered and
overtake one another. Both hold as long as nothing is cut by the bounds below, and then only the oldest is lost.

All times are the node's own and are compared only with one another: a node's clock may be wrong, not what it orders.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from navarch_common.events.messages import OBSERVATIONS_MAX
from navarch_common.model.health import EPISODES_MAX, Episode

FOLD: Final = timedelta(seconds=5)
EPISODES_PER_CODE: Final = 8
"""How many episodes of one entity and code are kept apart. A rule can count up to here."""
SEEN_MAX: Final = 16
"""How many lines of one episode are told apart. More than this many are still one episode."""


class Line(Struct, frozen=True, kw_only=True):
    """One thing that was seen, as far as folding is concerned."""

    entity: str
    code: str
    boot_id: str
    at: datetime
    number: int
    """Unique within a boot and the same on every redelivery: see `line_number`."""


def line_number(sequence: int, place: int) -> int:
    """The number of the observation at `place` in the report `sequence`."""
    return sequence * OBSERVATIONS_MAX + place


def fold(episodes: tuple[Episode, ...], line: Line) -> tuple[Episode, ...]:
    """Adds `line`. Returns `episodes` itself, the same object, where it says nothing new."""
    own = [e for e in episodes if (e.entity, e.code, e.boot_id) == (line.entity, line.code, line.boot_id)]
    if own and len(own) == EPISODES_PER_CODE and line.at < own[0].first_at - FOLD:
        return episodes  # older than all that is kept: it has been counted or is past counting
    touching = [e for e in own if e.first_at - FOLD <= line.at <= e.last_at + FOLD]
    merged = _merge(line, touching)
    if touching and structs.replace(merged, count=touching[0].count) == touching[0]:
        return episodes
    others = [e for e in own if e not in touching]
    apart = [e for e in episodes if (e.entity, e.code, e.boot_id) != (line.entity, line.code, line.boot_id)]
    return _bounded([*apart, *_numbered([*others, merged], own)])


def of(episodes: Iterable[Episode], entity: str, code: str) -> tuple[Episode, ...]:
    """Those of one entity and code, over all boots, oldest first."""
    return tuple(sorted((e for e in episodes if e.entity == entity and e.code == code), key=_order))


def episodes_within(episodes: tuple[Episode, ...], within: timedelta | None) -> int:
    """How many of `episodes` (of one entity and code) ended no longer than `within` before the newest ended."""
    if not episodes:
        return 0
    if within is None:
        newest_by_boot = {e.boot_id: e.count for e in episodes}
        return sum(newest_by_boot.values())
    newest = max(e.last_at for e in episodes)
    return sum(1 for e in episodes if newest - e.last_at <= within)


def _merge(line: Line, touching: list[Episode]) -> Episode:
    """One episode of a line and every episode that it touches: it may close the gap between two."""
    seen = sorted({line.number, *(number for e in touching for number in e.seen)})[-SEEN_MAX:]
    return Episode(
        entity=line.entity,
        code=line.code,
        boot_id=line.boot_id,
        first_at=min([line.at, *(e.first_at for e in touching)]),
        last_at=max([line.at, *(e.last_at for e in touching)]),
        lines=len(seen),
        sequence=seen[-1] // OBSERVATIONS_MAX,
        seen=tuple(seen),
    )


def _numbered(own: list[Episode], before: list[Episode]) -> list[Episode]:
    """Numbers a code's episodes in order and keeps the newest; what was dropped stays counted."""
    base = min((e.count for e in before), default=1) - 1
    ordered = sorted(own, key=_order)
    numbered = [structs.replace(e, count=base + place) for place, e in enumerate(ordered, start=1)]
    return numbered[-EPISODES_PER_CODE:]


def _bounded(episodes: list[Episode]) -> tuple[Episode, ...]:
    newest = sorted(episodes, key=_order)[-EPISODES_MAX:]
    return tuple(newest)


def _order(episode: Episode) -> tuple[datetime, datetime, str, str, str]:
    return (episode.last_at, episode.first_at, episode.entity, episode.code, episode.boot_id)
