"""How far automation may go: holds, approvals, the breaker, limits, and what silence alone may condemn.

Each is held at the commit that would cross it, by what records and orders say and by counts of its own: buckets are what
the services go by, so nothing here looks into them. What operators asked for is theirs, and bound by none of it.
"""

from collections.abc import Callable, Iterator, Mapping

from navarch_common.config import Config
from navarch_common.config.limits import LimitsConfig
from navarch_common.events.kinds import NodeFailed
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import ENDED, NodeRecord, Phase
from navarch_common.model.pool import SupplyRecord
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.truth import Truth

INVARIANTS: dict[str, str] = {
    "held": "automation leaves alone what an operator holds",
    "approved": "where automation waits for operators, no node is taken out that none of them let go",
    "breaker": "while a pool's breaker is open, automation takes out its canary alone",
    "limits": "no more nodes, launches and replacements than `limits:` allows",
    "silence-alone": "silence alone condemns no more than half of a pool, and never its last healthy node",
}
_ACTS = frozenset(
    {Phase.PLANNED, Phase.LAUNCHING, Phase.DRAINING, Phase.REGISTRATION_TIMEOUT, Phase.TERMINATING}
)  # fmt: skip
"""Phases that a node enters because somebody decided so. Into the others it gets by itself, or its provider says so."""
_TAKEN_OUT = frozenset({Phase.DRAINING, Phase.TERMINATING})
_IN_SERVICE = frozenset({Phase.ACTIVE, Phase.DRAINING})
_MACHINE = frozenset(Phase) - ENDED - {Phase.PLANNED}
"""There is a machine, or there may be one."""
_GOOD = frozenset({HealthStatus.HEALTHY, HealthStatus.DEGRADED})
_HOUR_S = 3600.0


class Bounds:
    """Judges of what automation does. `fail` is told of a broken promise."""

    def __init__(self, config: Config, orders: Orders, truth: Truth, fail: Callable[[str, str], None]) -> None:
        self._config, self._orders, self._truth, self._fail = config, orders, truth, fail
        self._supply: dict[str, SupplyRecord] = {}
        self._health: dict[str, HealthRecord] = {}
        self._launched: dict[str, dict[str, float]] = {}
        """By scope, the nodes that were launched and when."""
        self._replaced: dict[str, dict[str, float]] = {}
        self._forgotten = False
        self.broke = 0
        """How often a breaker was seen to open."""

    def forget(self, supply: Mapping[str, SupplyRecord], health: Mapping[str, HealthRecord]) -> None:
        """The store was put back: it knows no more of the places that were taken since, and nobody can blame it."""
        self._supply, self._health = dict(supply), dict(health)
        self._forgotten = True

    # --- at each commit ---

    def on_supply(self, record: SupplyRecord) -> None:
        before = self._supply.get(record.pool)
        self.broke += record.breaker is not None and (before is None or before.breaker is None)
        self._supply[record.pool] = record

    def on_node(self, was: Phase | None, record: NodeRecord, nodes: Mapping[str, NodeRecord], at_s: float) -> None:
        """`record` has entered its phase in this commit; `nodes` are as they stand after it."""
        if record.phase is Phase.LAUNCHING:
            self._take(record, "launches", nodes, at_s)
        if record.phase is Phase.DRAINING and _cause(record) == "fault":
            self._take(record, "replacements", nodes, at_s)
        if record.phase not in _ACTS or record.by_force or self._truth.of(record.node).wishes:
            return
        if record.phase is Phase.PLANNED and was is not None:
            return  # A call that was forbidden, refused or proven to have made nothing is an intent again.
        if hold := self._orders.holds(record.node, record.pool, at_s):
            self._fail("held", f"{record.node} became {record.phase.value} although {hold}")
        if was in _IN_SERVICE and record.phase in _TAKEN_OUT:
            self._taken_out(record)

    def _taken_out(self, record: NodeRecord) -> None:
        config = self._config.pools.get(record.pool)
        if config is not None and config.automation == "approve" and record.approved not in self._orders.approved:
            self._fail("approved", f"{record.node} became {record.phase.value} and nobody approved it ({_why(record)})")
        supply = self._supply.get(record.pool)
        breaker = supply.breaker if supply is not None else None
        # The canary is a node that goes, or the one that takes its place.
        if breaker is not None and (not breaker.canary or breaker.canary not in (record.node, record.replaced_by)):
            self._fail("breaker", f"{record.node} became {record.phase.value} with the breaker open: {_why(record)}")

    def on_health(self, record: HealthRecord, told: NodeFailed | None, nodes: Mapping[str, NodeRecord]) -> None:
        """`told` where it failed in this commit."""
        self._health[record.node] = record
        if told is None or told.code != "silence":
            return
        pool = [one for one in nodes.values() if one.pool == record.pool and one.phase not in ENDED]
        dead = [one.node for one in pool if one.phase in _IN_SERVICE and self._died_of_silence(one.node)]
        if 2 * len(dead) > len(pool):
            names = ", ".join(sorted(dead))
            self._fail("silence-alone", f"{len(dead)} of {len(pool)} nodes of {record.pool} failed of silence: {names}")
        if not any(self._is_good(one.node) for one in pool):
            self._fail("silence-alone", f"{record.node} failed of silence, and {record.pool} has no healthy node left")

    def _died_of_silence(self, node: str) -> bool:
        record = self._health.get(node)
        return record is not None and record.status is HealthStatus.UNHEALTHY and record.code == "silence"

    def _is_good(self, node: str) -> bool:
        record = self._health.get(node)
        return record is not None and record.status in _GOOD

    # --- limits ---

    def _scopes(self, pool: str) -> Iterator[tuple[str, LimitsConfig]]:
        """The limits that bind a pool. There is one provider in this world."""
        yield "limits", self._config.limits
        for name, provider in self._config.providers.items():
            yield f"providers.{name}.limits", provider.limits
        if (config := self._config.pools.get(pool)) is not None:
            yield f"pools.{pool}.limits", config.limits

    def _take(self, record: NodeRecord, what: str, nodes: Mapping[str, NodeRecord], at_s: float) -> None:
        for scope, limits in self._scopes(record.pool):
            taken = (self._launched if what == "launches" else self._replaced).setdefault(scope, {})
            taken[record.node] = at_s
            most = limits.launches_per_hour if what == "launches" else limits.replacements_per_hour
            count = sum(1 for then_s in taken.values() if then_s > at_s - _HOUR_S)
            if most is not None and count > most and not self._forgotten:
                self._fail("limits", f"{record.node}: {count} {what} within an hour, and {scope} allows {most}")
            if what == "launches" and limits.nodes is not None and not self._forgotten:
                there = _there(scope, record.pool, nodes)
                if there > limits.nodes:
                    self._fail(
                        "limits", f"{record.node} is launched as the {there}th, and {scope} allows {limits.nodes}"
                    )

    def limited(self, pool: str, nodes: Mapping[str, NodeRecord], at_s: float) -> str:
        """Which limit keeps a pool from what it should have, by our own count; empty where none does."""
        for scope, limits in self._scopes(pool):
            for key, most, taken in (
                ("launches_per_hour", limits.launches_per_hour, self._launched),
                ("replacements_per_hour", limits.replacements_per_hour, self._replaced),
            ):
                if most is not None and sum(1 for s in taken.get(scope, {}).values() if s > at_s - _HOUR_S) >= most:
                    return f"{scope}.{key}"
            if limits.nodes is not None and _there(scope, pool, nodes) >= limits.nodes:
                return f"{scope}.nodes"
        return ""


def _there(scope: str, pool: str, nodes: Mapping[str, NodeRecord]) -> int:
    own = scope.startswith("pools.")
    return sum(1 for one in nodes.values() if one.phase in _MACHINE and (one.pool == pool or not own))


def _cause(record: NodeRecord) -> str:
    return record.drain.cause if record.drain is not None else ""


def _why(record: NodeRecord) -> str:
    return record.reasons[-1].text if record.reasons else "no reason on record"
