"""Whether the store is the one that was there before: what it says against what the bus remembers of it. Pure.

The bus remembers who the store is (installation, incarnation, epoch) and how far it had come (its count of commits).
A count that is smaller than the one remembered, in the same incarnation, is a store that was rolled back: a failover to
a replica that lagged, or a backup. Whoever compares reads the bus first: what it remembers is then never newer than the
store by itself.
"""

from dataclasses import dataclass

from msgspec import Struct

from navarch_common.ids import Id
from navarch_common.model.base import Code, Count, Name, Sequence, Text
from navarch_common.model.cluster import MetaRecord
from navarch_common.store.base import Standing


class Mirror(Struct, frozen=True, kw_only=True):
    """What the bus remembers of the store."""

    cluster: Id
    installation: Name
    incarnation: Name
    epoch: Count
    commits: Sequence = 0

    def behind(self, other: "Mirror") -> bool:
        """Whether `other` says more: a later epoch, or more commits in the same incarnation."""
        if self.epoch != other.epoch or self.incarnation != other.incarnation:
            return self.epoch < other.epoch
        return self.commits < other.commits

    def names_the_life_of(self, other: "Mirror") -> bool:
        """Whether both are about the same life, however far it had come."""
        return (self.installation, self.incarnation, self.epoch) == (
            other.installation,
            other.incarnation,
            other.epoch,
        )


def mirror_of(record: MetaRecord, commits: int) -> Mirror:
    return Mirror(
        cluster=record.cluster,
        installation=record.installation,
        incarnation=record.incarnation,
        epoch=record.epoch,
        commits=commits,
    )


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the store cannot be trusted yet."""

    code: Code
    reason: Text
    same_life: bool = False
    """Nothing suggests that the store itself has lost anything: what was read of it before is still true."""


def doubt(
    stored: MetaRecord | None, mirror: Mirror | None, installation_on_disk: str, *, has_nodes: bool, commits: int = 0
) -> Doubt | None:
    """Compares the store with its mirror and the data directory. None: it is the one that was there before, or this is
    the first start of all."""
    if stored is None and mirror is None:
        if installation_on_disk:
            return Doubt("state-lost", f"installation {installation_on_disk} was here before; store and bus are empty")
        return None
    if stored is None and mirror is not None:
        return Doubt("store-lost", f"the store is empty; it was incarnation {mirror.incarnation}")
    assert stored is not None
    if mirror is None:
        # Without a node nothing can have been launched: a first start was cut short, or is going on elsewhere.
        return Doubt("mirror-lost", "the bus has lost its memory of the store", same_life=True) if has_nodes else None
    if _another(stored, mirror):
        return Doubt(
            "store-different",
            f"the store is incarnation {stored.incarnation} of installation {stored.installation}; it was "
            f"{mirror.incarnation} of {mirror.installation}",
        )
    if stored.epoch < mirror.epoch:
        return Doubt("store-rolled-back", f"the store is at epoch {stored.epoch}; it was at {mirror.epoch}")
    if stored.incarnation == mirror.incarnation and commits < mirror.commits:
        return Doubt(
            "store-rolled-back",
            f"the store has seen {commits} commits; it had seen {mirror.commits}: it was rolled back",
        )
    return None


def _another(stored: MetaRecord, mirror: Mirror) -> bool:
    """A later epoch explains another incarnation (it began a new life) or another installation (it was taken over), never
    both: then the bus is about to hear of it."""
    differs = (stored.incarnation != mirror.incarnation) + (stored.installation != mirror.installation)
    return differs == 2 or (differs == 1 and stored.epoch <= mirror.epoch)


def doubt_while_running(
    standing: Standing, mirror: Mirror | None, known: Mirror | None, installation_on_disk: str, *, has_nodes: bool
) -> Doubt | None:
    """As `doubt`, for a process that may have seen more than the bus remembers: `known` is what it saw last."""
    stored = standing.meta.record if standing.meta else None
    superseded = stored is not None and known is not None and stored.epoch > known.epoch and not _another(stored, known)
    if superseded and mirror is None:
        return None  # another copy was quicker, and the bus is about to hear of it
    if known is not None and not superseded:
        seen = doubt(stored, known, installation_on_disk, has_nodes=has_nodes, commits=standing.commits)
        if seen is not None:
            lost = stored is None and mirror is None
            return Doubt("state-lost", f"{seen.reason}, and the bus has forgotten that") if lost else seen
    return doubt(stored, mirror, installation_on_disk, has_nodes=has_nodes, commits=standing.commits)
