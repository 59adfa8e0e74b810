"""What another configuration would take out of a running fleet. Pure.

Counted are the nodes that would be too many because their pool may be smaller, and those that are kept although they are
broken, busy or waited for, and would be kept no longer. Not counted is what leaves the file, since that is retired; a
pool where each step waits for a word of its own; and what strategies may want of later demand, which takes idle nodes
alone, one cooldown after the other.

While the records may know less than is there (safe mode), every node that the pool might have is counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from navarch_common.config import PoolConfig
from navarch_common.config.units import Share
from navarch_common.model.cluster import Taking
from navarch_common.model.node import LEAVING, NodeRecord, Phase
from navarch_common.model.pool import PoolRecord, SupplyRecord
from navarch_common.words import counted
from navarch_gateway.known import Known

AT_ONCE = Share(1, 0.05)
"""So many of a pool's nodes may one change of the file take. More waits for an operator."""
LETS_GO = frozenset({"drain", "give-up", "replace", "retire", "terminate"})
"""Acts of changes that wait, after which a node is there no more."""

Pools = Mapping[str, PoolConfig]


def takings(known: Known, old: Pools, new: Pools, now: datetime, *, blind: bool = False) -> tuple[Taking, ...]:
    """Pool by pool, where anything would go. `old` are the pools in force; those that are not are retired, or unknown.
    `blind`: the records may know less than is there."""
    found = []
    for pool in sorted(new):
        if new[pool] == old.get(pool) or new[pool].automation != "act":
            continue
        taking = _blindly(pool, old.get(pool), new[pool]) if blind else None
        taking = taking or _taking(pool, known, old.get(pool), new[pool], now)
        if taking.nodes:
            found.append(taking)
    return tuple(found)


def is_too_much(taking: Taking) -> bool:
    return taking.nodes > AT_ONCE.of(taking.of)


def text_of(taken: Iterable[Taking]) -> str:
    """`training: 3 of 4 nodes would go (max_nodes 4 -> 1)`, of each pool."""
    return "; ".join(
        f"{one.pool}: {one.nodes} of {counted(one.of, 'node')} would go ({one.why})" for one in taken
    )  # fmt: skip


def _taking(pool: str, known: Known, old: PoolConfig | None, new: PoolConfig, now: datetime) -> Taking:
    there = [node for node in known.living(pool) if _is_there(node)]
    record = known.pools[pool].record if pool in known.pools else None
    supply = known.supply[pool].record if pool in known.supply else None
    whys = []
    too_many = _too_many(len(there), record, old, new, now)
    if too_many:
        whys.append(_bounds(old, new))
    freed = _let_go(known, there, supply, old, new, whys)
    return Taking(
        pool=pool, nodes=min(too_many + len(freed), len(there)), of=len(there), why="; ".join(whys)[:1024],
        named=tuple(sorted(freed))[:256],
    )  # fmt: skip


def _is_there(node: NodeRecord) -> bool:
    """It has a machine, or will have, that is not on its way out already."""
    goes = node.drain is not None and node.drain.then_terminate and node.phase is Phase.DRAINING
    return node.phase not in (LEAVING | {Phase.PLANNED}) and not goes


def _too_many(there: int, record: PoolRecord | None, old: PoolConfig | None, new: PoolConfig, now: datetime) -> int:
    """Nodes that would be too many, without those that are already."""
    after = max(0, there - _wanted(there, record, new, old, now))
    if old is None or (new.scale_down.force and not old.scale_down.force):
        return after  # what is too many was kept: by being retired, or by its work
    return max(0, after - max(0, there - _wanted(there, record, old, new, now)))


def _wanted(there: int, record: PoolRecord | None, config: PoolConfig, other: PoolConfig | None, now: datetime) -> int:
    """How many nodes the autoscaler would want under `config`, as things are."""
    wanted = there if record is None else record.desired
    silent = record is None or record.paused is not None or (record.hold_until is not None and record.hold_until > now)
    if record is not None and not silent and other is not None and config.autoscaling == other.autoscaling:
        # The strategy stays, so what it found last stands: a lower floor lets it have its way.
        for opinion in record.opinions[:1]:
            if opinion.target is not None and (opinion.fresh or opinion.target > wanted):
                wanted = opinion.target
    return min(max(wanted, config.min_nodes), config.max_nodes)


def _bounds(old: PoolConfig | None, new: PoolConfig) -> str:
    if old is None:
        return f"it comes back with max_nodes {new.max_nodes}"
    pairs = (
        ("max_nodes", old.max_nodes, new.max_nodes),
        ("min_nodes", old.min_nodes, new.min_nodes),
        ("scale_down.force", old.scale_down.force, new.scale_down.force),
    )
    return ", ".join(f"{key} {was} -> {will_be}".lower() for key, was, will_be in pairs if was != will_be)


def _let_go(
    known: Known, there: Sequence[NodeRecord], supply: SupplyRecord | None, old: PoolConfig | None, new: PoolConfig,
    whys: list[str],
) -> set[str]:  # fmt: skip
    """Nodes that were kept, by name. Adds to `whys`."""
    freed: set[str] = set()
    names = {node.node for node in there}
    if supply is not None and (old is None or old.automation != "act"):
        waiting = {change.node for change in supply.changes if change.act in LETS_GO} & names
        if waiting:
            freed |= waiting
            whys.append(f"automation: act carries out {counted(len(waiting), 'change')} that waited")
    failed = {node.node for node in there if node.phase is Phase.ACTIVE and _failed(known, node)}
    why = _replaced_now(len(there), supply, old, new)
    if failed and why:
        freed |= failed
        whys.append(f"{why} lets {counted(len(failed), 'failed node')} be replaced")
    return freed


def _failed(known: Known, node: NodeRecord) -> bool:
    health = known.health_of(node.node)
    return health is not None and health.generation == node.generation and health.failed


def _replaced_now(there: int, supply: SupplyRecord | None, old: PoolConfig | None, new: PoolConfig) -> str:
    """The key that lets failed nodes be replaced which were not, or nothing."""
    if not new.health.auto_replace:
        return ""
    if old is None or not old.health.auto_replace:
        return "health.auto_replace"
    breaker = supply.breaker if supply is not None else None
    held = breaker is not None and breaker.code == "too-many-unhealthy"
    more = new.disruption.max_unhealthy.of(there) > old.disruption.max_unhealthy.of(there)
    return "disruption.max_unhealthy" if held and more else ""


def _blindly(pool: str, old: PoolConfig | None, new: PoolConfig) -> Taking | None:
    """What it could take at most. None where the file does not bound that, since the pool was not in force."""
    if old is None:
        return None
    floor = old.min_nodes - new.min_nodes if new.autoscaling is not None else 0
    nodes, why = max(0, old.max_nodes - new.max_nodes, floor), _bounds(old, new)
    for key, lets_go in (
        ("scale_down.force", new.scale_down.force and not old.scale_down.force),
        ("health.auto_replace", new.health.auto_replace and not old.health.auto_replace),
        ("automation", old.automation != "act"),
    ):
        if lets_go:
            nodes, why = old.max_nodes, key
    return Taking(pool=pool, nodes=nodes, of=old.max_nodes, why=f"safe mode, any node may be there: {why}")
