"""What silence means: who is overdue, and who of them may be called suspect or failed.

Silence is weak evidence: most often it is ours. So a node that is silent is first suspect, then its provider is asked,
then it is probed, and only a long deadline without any sign makes it failed. And never

- while this observer itself may have been deaf (`observer`),
- when many share it at once: over 3 nodes and over 5 % of the fleet is one cause, and not in so many machines,
- when over 3 nodes and over half of a provider's zone share it: a zone that went dark is no machine's fault either,
- for more than half of a pool, or for its last healthy node.

The provider's word that a machine is gone counts whatever we heard. A verdict that a guard holds back is said so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from navarch_common.model.health import HealthStatus

MASS_COUNT: Final = 3
"""So many nodes may fall silent together whatever their share is: small fleets have failures too."""
MASS_RATIO: Final = 0.05
"""Over this share of the fleet, silence is not the machines' fault (5 %, domain notes on mass false positives)."""


@dataclass(frozen=True, slots=True)
class Life:
    """One node as far as silence is concerned."""

    node: str
    pool: str
    status: HealthStatus
    last_heard: datetime
    """Its last heartbeat, or since when one was expected, by the hearer's clock."""
    silent: bool
    """Its heartbeat is overdue."""
    suspect_since: datetime | None = None
    """Its record says that it is silent since then."""
    suspected_at: datetime | None = None
    """When that was committed: silence before it may have been ours."""
    gone_at: datetime | None = None
    """The provider said then that the machine is gone."""
    failed_by_silence: bool = False
    answered_at: datetime | None = None
    """When it last answered a probe."""
    zone: str = ""
    """Where its provider runs it, as `<provider>/<region>/<zone>`; empty where that is not known."""
    dark_at: datetime | None = None
    """When its zone was last dark: silence until then proves nothing."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence is borne."""

    heartbeat_timeout: timedelta
    silence_deadline: timedelta


Verdict = Literal["suspect", "failed", "gone", "held"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one silent node, and why."""

    node: str
    verdict: Verdict
    reason: str
    code: str = "silence"


@dataclass(frozen=True, slots=True)
class Ruling:
    """The decisions of one pass."""

    decisions: tuple[Decision, ...]
    mass: str = ""
    """Not empty while too many are silent at once."""
    dark: Mapping[str, str] = field(default_factory=dict)
    """The zones that are silent as a whole, each with its sentence for the alarm."""
    rest: str = ""
    """As `mass`, but only of those whose zone does not explain it: the sentence for the fleet's alarm."""


def rule_on_silence(
    lives: tuple[Life, ...],
    now: datetime,
    patience: Patience,
    *,
    fleet: int,
    zones: Mapping[str, int] | None = None,
    heard_since: datetime | None = None,
    deaf: str = "",
) -> Ruling:
    """`lives` are all watched nodes, silent or not, of every pool with a silent one; `fleet` counts those of all pools, `zones` those of each zone.

    `heard_since`: since when this observer has heard without a break and without many silent at once; None is always.
    `deaf` says why it cannot trust its ears now.
    """
    waiting = [life for life in lives if life.silent and life.status != HealthStatus.UNHEALTHY]
    mass = _mass(len(waiting), fleet)
    dark = _dark(waiting, zones or {})
    rest = _mass(sum(1 for life in waiting if life.zone not in dark), fleet)
    pools = _Pools(lives)
    ordered = sorted(waiting, key=lambda one: (one.last_heard, one.node))
    decisions = (
        _rule(life, now, patience, pools, _Ears(deaf or mass or dark.get(life.zone, ""), heard_since))
        for life in ordered
    )
    return Ruling(tuple(decision for decision in decisions if decision is not None), mass, dark, rest)


class _Pools:
    """Counts by pool, kept while a pass fails nodes one after the other."""

    def __init__(self, lives: tuple[Life, ...]) -> None:
        # A machine that still boots has proven nothing yet: a replacement under way must not make room for the next.
        self._size = Counter(life.pool for life in lives if life.silent or life.status != HealthStatus.UNKNOWN)
        self._failed = Counter(life.pool for life in lives if life.failed_by_silence)
        self._healthy = Counter(
            life.pool
            for life in lives
            if not life.silent and life.status in (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
        )

    def forbid(self, pool: str) -> str:
        """Why no other node of the pool may fail on silence alone; empty where one may."""
        if not self._healthy[pool]:
            return f"no healthy node would be left in pool {pool}"
        if (self._failed[pool] + 1) * 2 > self._size[pool]:
            return f"more than half of pool {pool} would have failed on silence alone"
        return ""

    def failed(self, pool: str) -> None:
        self._failed[pool] += 1


@dataclass(frozen=True, slots=True)
class _Ears:
    held: str
    heard_since: datetime | None


def _rule(life: Life, now: datetime, patience: Patience, pools: _Pools, ears: _Ears) -> Decision | None:
    silent_s = (now - life.last_heard).total_seconds()
    suspect = life.suspect_since is not None
    gone = life.gone_at is not None and life.gone_at > (life.suspect_since or life.last_heard)
    if gone and (suspect or ears.held):
        return Decision(life.node, "gone", "its provider says that the machine is gone", "provider-gone")
    if ears.held:
        return Decision(life.node, "held", f"silent for {silent_s:.0f} s; {ears.held}", "verdicts-suspended")
    if not suspect:
        return Decision(life.node, "suspect", f"silent for {silent_s:.0f} s")
    if now - _proven_since(life, patience, ears.heard_since) < patience.silence_deadline:
        return None
    if life.answered_at is not None and now - life.answered_at <= patience.heartbeat_timeout * 2:
        return Decision(
            life.node, "held", "no heartbeats arrive, but it answers probes: its agent lives", "answers-probes"
        )
    if forbidden := pools.forbid(life.pool):
        return Decision(life.node, "held", f"silent for {silent_s:.0f} s; {forbidden}", "pool-guard")
    pools.failed(life.pool)
    return Decision(life.node, "failed", f"silent for {silent_s:.0f} s")


def _proven_since(life: Life, patience: Patience, heard_since: datetime | None) -> datetime:
    """Since when the silence is the node's own: neither before we listened, nor long before it was suspected, so that
    its provider is asked and it is probed before it is given up."""
    times = [life.suspect_since, heard_since, life.dark_at]
    times.append(None if life.suspected_at is None else life.suspected_at - patience.heartbeat_timeout)
    return max(at for at in (life.last_heard, *times) if at is not None)


def _dark(waiting: list[Life], zones: Mapping[str, int]) -> dict[str, str]:
    silent = Counter(life.zone for life in waiting if life.zone)
    return {
        zone: f"{count} of {zones[zone]} nodes in zone {zone} are silent at once: the zone, or the way to it, is dark"
        for zone, count in sorted(silent.items())
        if count > MASS_COUNT and zone in zones and count * 2 > zones[zone]
    }


def _mass(silent: int, fleet: int) -> str:
    if silent <= MASS_COUNT or silent <= MASS_RATIO * fleet:
        return ""
    return (
        f"{silent} of {fleet} nodes are silent at once, over {MASS_COUNT} and over {MASS_RATIO:.0%}: "
        "verdicts from silence are suspended, the cause is looked for between us and them"
    )
