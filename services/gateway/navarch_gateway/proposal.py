"""Brings the configuration file into force: what it says becomes the next generation, or is refused with the old one in force.

Which it is, is decided here (pure); `proposer` reads, commits and watches.
"""

from collections.abc import Collection
from datetime import datetime

from navarch_common.config.load import Loaded
from navarch_common.config.problems import ConfigError
from navarch_common.events.kinds import ConfigApplied, ConfigRejected, PoolRetiring
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import CONFIG, ConfigRecord
from navarch_common.store.base import ABSENT, Commit, Stored

CURRENT = CONFIG.key("current")
ERRORS_TOLD = 32


def apply(
    found: Stored[ConfigRecord] | None,
    loaded: Loaded,
    source: str,
    cluster: str,
    now: datetime,
    pools: Collection[str] = (),
) -> Commit | None:
    """The commit that brings `loaded` into force; None where it is in force already. `pools` were in force before."""
    if found is not None and found.record.sha256 == loaded.sha256:
        return None
    generation = found.record.generation + 1 if found is not None else 1
    record = ConfigRecord(
        generation=generation, text=loaded.text, sha256=loaded.sha256, author="gateway", source=source[-256:], at=now
    )
    reason = f"generation {generation} comes into force, from {source}"
    event = ConfigApplied(
        at=now, cluster=cluster, reason=reason[:1024], code="config-applied", actor="gateway",
        generation=generation, sha256=loaded.sha256,
    )  # fmt: skip
    kept = CONFIG.key(str(generation))
    expect: dict[AnyKey, int] = {CURRENT: found.revision if found is not None else ABSENT, kept: ABSENT}
    retiring = tuple(
        PoolRetiring(
            at=now, cluster=cluster, pool=pool, code="retiring", actor="gateway",
            reason=f"it left the configuration in generation {generation}: nothing is launched or terminated any more",
        )
        for pool in sorted(set(pools) - set(loaded.config.pools))
    )  # fmt: skip
    return Commit(expect=expect, put={CURRENT: record, kept: record}, emit=(event, *retiring))


def reject(found: Stored[ConfigRecord], error: ConfigError, source: str, cluster: str, now: datetime) -> Commit:
    """The commit that tells that `source` was refused. No record changes."""
    generation = found.record.generation
    errors = tuple(str(problem)[:1024] for problem in error.problems[:ERRORS_TOLD])
    first, *others = errors or (str(error),)
    told = "; ".join((first, *(other.removeprefix(f"{source}:") for other in others)))
    reason = f"refused, generation {generation} stays in force: {told}"
    event = ConfigRejected(
        at=now, cluster=cluster, reason=reason[:1024], code="config-rejected", actor="gateway",
        generation=generation, errors=errors,
    )  # fmt: skip
    return Commit(emit=(event,))
