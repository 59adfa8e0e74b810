"""Brings the configuration file into force: what it says becomes the next generation, is refused with the old one in force,
or waits with the old one in force, since it would take too much out of a pool (`takings`), until an operator has spoken.

Which it is, is decided here (pure); `proposer` reads, commits and watches, `spoken` does what the operator says.
"""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from msgspec import structs

from navarch_common.config.load import Loaded
from navarch_common.config.problems import ConfigError
from navarch_common.events.kinds import ConfigApplied, ConfigRejected, PoolChangeHeld, PoolRetiring
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.cluster import CONFIG, PROPOSAL, ConfigRecord, ProposedConfig, Taking
from navarch_common.store.base import ABSENT, Commit, Stored
from navarch_gateway.takings import is_too_much, text_of

CURRENT = CONFIG.key("current")
PROPOSED = PROPOSAL.key("config")
ERRORS_TOLD = 32
STANDING = ("", "cancelled")
"""It waits, or was cancelled: as long as the file says so, nothing more is said of it."""

Closed = Literal["approved", "cancelled", "superseded"]
Proposed = Stored[ProposedConfig] | None
"""What was proposed last and did not come into force at once."""


def apply(
    found: Stored[ConfigRecord] | None,
    loaded: Loaded,
    source: str,
    cluster: str,
    now: datetime,
    pools: Collection[str] = (),
    proposed: Proposed = None,
) -> Commit | None:
    """The commit that brings `loaded` into force; where it is in force already, the one that closes what
    waited in its place, or None. `pools` were in force before."""
    if found is not None and found.record.sha256 == loaded.sha256:
        return _withdraw(found, proposed)
    record = ConfigRecord(
        generation=_next(found), text=loaded.text, sha256=loaded.sha256, author="gateway", source=source[-256:], at=now
    )
    closed = None
    if proposed is not None and proposed.record.closed in STANDING:
        closed = _closed(proposed.record, "superseded", "gateway")
    return _into_force(found, record, cluster, sorted(set(pools) - set(loaded.config.pools)), proposed, closed)


def stands(found: Stored[ConfigRecord], proposed: Proposed, loaded: Loaded) -> bool:
    """Whether `loaded` waits already, or was cancelled, and nothing is to be said of it again."""
    if proposed is None or proposed.record.closed not in STANDING:
        return False
    return (proposed.record.sha256, proposed.record.generation) == (loaded.sha256, found.record.generation)


def hold(
    found: Stored[ConfigRecord],
    loaded: Loaded,
    source: str,
    cluster: str,
    now: datetime,
    pools: Collection[str],
    proposed: Proposed,
    taken: tuple[Taking, ...],
) -> Commit:
    """The commit that lets `loaded` wait, and tells of each pool that would lose too much."""
    generation = found.record.generation
    digest = hashlib.sha256(f"config/{generation}/{loaded.sha256}".encode()).hexdigest()
    record = ProposedConfig(
        change=f"c-{digest[:10]}", generation=generation, text=loaded.text, sha256=loaded.sha256, source=source[-256:],
        at=now, takings=taken, retires=tuple(sorted(set(pools) - set(loaded.config.pools))),
    )  # fmt: skip
    events = tuple(
        PoolChangeHeld(
            at=now, cluster=cluster, pool=one.pool, reason=held_text(record, (one,))[:1024], code="approval",
            actor="gateway", change=record.change, act="config",
        )
        for one in taken
        if is_too_much(one)
    )  # fmt: skip
    return Commit(expect={CURRENT: found.revision, PROPOSED: _revision(proposed)}, put={PROPOSED: record}, emit=events)


def held_text(record: ProposedConfig, taken: tuple[Taking, ...] | None = None) -> str:
    """What waits and why, in a sentence; of the pools `taken` alone where they are given."""
    said = text_of(record.takings if taken is None else taken)
    return f"the configuration in {record.source} waits for `navarch approve {record.change}`: {said}"


def approve(
    found: Stored[ConfigRecord],
    proposed: Stored[ProposedConfig],
    request_id: str,
    actor: str,
    cluster: str,
    now: datetime,
) -> Commit:
    """The commit that brings what waits into force."""
    waited = proposed.record
    record = ConfigRecord(
        generation=_next(found), text=waited.text, sha256=waited.sha256, author=actor, source=waited.source, at=now
    )
    closed = _closed(waited, "approved", actor, request_id)
    return _into_force(found, record, cluster, waited.retires, proposed, closed)


def cancel(proposed: Stored[ProposedConfig], request_id: str, actor: str) -> Commit:
    """The commit that drops what waits. The same text is not proposed again before the file has said something else."""
    record = _closed(proposed.record, "cancelled", actor, request_id)
    return Commit(expect={PROPOSED: proposed.revision}, put={PROPOSED: record})


def restore(
    found: Stored[ConfigRecord] | None, remembered: ConfigRecord | None, cluster: str, now: datetime
) -> Commit | None:
    """The commit that puts back what the bus `remembered` of a configuration that the store has lost; None where it has
    not. The generation stays: it is the same text, and services that act on it go on."""
    if remembered is None or (found is not None and found.record.generation >= remembered.generation):
        return None
    reason = f"generation {remembered.generation} is put back: the store had lost it, the bus remembers"
    event = ConfigApplied(
        at=now, cluster=cluster, reason=reason, code="config-restored", actor="gateway",
        generation=remembered.generation, sha256=remembered.sha256,
    )  # fmt: skip
    kept = CONFIG.key(str(remembered.generation))
    expect: dict[AnyKey, int] = {CURRENT: found.revision if found is not None else ABSENT, kept: ABSENT}
    return Commit(expect=expect, put={CURRENT: remembered, kept: remembered}, emit=(event,))


def reject(
    found: Stored[ConfigRecord], error: ConfigError, source: str, cluster: str, now: datetime, proposed: Proposed = None
) -> Commit:
    """The commit that tells that `source` was refused. What waited is not in the file any more, and waits no longer."""
    generation = found.record.generation
    errors = tuple(str(problem)[:1024] for problem in error.problems[:ERRORS_TOLD])
    first, *others = errors or (str(error),)
    told = "; ".join((first, *(other.removeprefix(f"{source}:") for other in others)))
    reason = f"refused, generation {generation} stays in force: {told}"
    event = ConfigRejected(
        at=now, cluster=cluster, reason=reason[:1024], code="config-rejected", actor="gateway",
        generation=generation, errors=errors,
    )  # fmt: skip
    return replace(_withdraw(found, proposed) or Commit(), emit=(event,))


def _into_force(
    found: Stored[ConfigRecord] | None,
    record: ConfigRecord,
    cluster: str,
    retires: Collection[str],
    proposed: Proposed,
    closed: ProposedConfig | None,
) -> Commit:
    """`record` as the next generation; `closed` is what becomes of the proposal, None where it stays as it is."""
    event = ConfigApplied(
        at=record.at, cluster=cluster, actor=record.author, code="config-applied",
        reason=f"generation {record.generation} comes into force, from {record.source}"[:1024],
        generation=record.generation, sha256=record.sha256,
    )  # fmt: skip
    gone = f"it left the configuration in generation {record.generation}: nothing is launched or terminated any more"
    retiring = tuple(
        PoolRetiring(at=record.at, cluster=cluster, pool=pool, code="retiring", actor=record.author, reason=gone)
        for pool in retires
    )
    kept = CONFIG.key(str(record.generation))
    expect: dict[AnyKey, int] = {CURRENT: _revision(found), kept: ABSENT, PROPOSED: _revision(proposed)}
    put: dict[AnyKey, Record] = {CURRENT: record, kept: record, **({} if closed is None else {PROPOSED: closed})}
    return Commit(expect=expect, put=put, emit=(event, *retiring))


def _next(found: Stored[ConfigRecord] | None) -> int:
    return found.record.generation + 1 if found is not None else 1


def _withdraw(found: Stored[ConfigRecord], proposed: Proposed) -> Commit | None:
    """Closes what waits, or was cancelled, since the file no longer says it. None where nothing is."""
    if proposed is None or proposed.record.closed not in STANDING:
        return None
    record = _closed(proposed.record, "superseded", "gateway")
    return Commit(expect={CURRENT: found.revision, PROPOSED: proposed.revision}, put={PROPOSED: record})


def _closed(record: ProposedConfig, closed: Closed, actor: str, request_id: str = "") -> ProposedConfig:
    return structs.replace(record, text="", closed=closed, closed_by=actor, request_id=request_id)


def _revision(stored: Stored[Any] | None) -> int:
    return ABSENT if stored is None else stored.revision
