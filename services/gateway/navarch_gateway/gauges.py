"""State as gauges: how many nodes, of which status, at what price. Pure; `service` puts them into the process's metrics.

They come from the gateway alone, so that a sum over a service's copies is not too large.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from navarch_common.metrics import Metrics
from navarch_common.model.health import HealthStatus
from navarch_common.model.leak import LeakRecord
from navarch_common.model.status import Status, count_statuses, health_of
from navarch_gateway.known import Known
from navarch_gateway.leaks import dollars, is_leaked
from navarch_gateway.selection import provider_of
from navarch_gateway.status import Backstage

Values = Mapping[tuple[str, ...], float]
"""A gauge's values by its labels, in the catalogue's order; one value under `()` where it has none."""

_HEALTH_VALUE = {HealthStatus.HEALTHY: 1.0, HealthStatus.SUSPECT: 0.5, HealthStatus.DEGRADED: 0.5}
"""Unhealthy and unknown are 0: an alert on a value below 1 must not miss a node that nobody can see."""


def state_gauges(known: Known, behind: Backstage, now: datetime) -> dict[str, Values]:
    """Every state gauge with its values. What is not known is left out: a missing series is not a zero."""
    frozen = known.freezes(now)
    gauges: dict[str, Values] = {
        **_nodes(known),
        **_pools(known),
        "navarch_frozen": {(guard.level, guard.pool or ""): 1.0 for guard in frozen},
        "navarch_safe_mode": {(): float(behind.safe_mode is not None)},
        "navarch_config_generation": {("gateway",): float(behind.generation)},
        "navarch_consumer_pending_messages": {
            (waiting.stream, waiting.consumer): float(waiting.pending)
            for waiting in behind.backlog
            if waiting.pending is not None
        },
    }
    if behind.leaks is not None:
        gauges |= _leaks(known, behind.leaks)
    if behind.outbox_events is not None:
        gauges["navarch_outbox_events"] = {(): float(behind.outbox_events)}
    return gauges


def put(metrics: Metrics, gauges: Mapping[str, Values]) -> None:
    for name, values in gauges.items():
        if name == "navarch_config_generation" or () in values:
            for labels, value in values.items():
                metrics.set(name, value, **({"service": labels[0]} if labels else {}))
        else:
            metrics.set_all(name, values)


def _leaks(known: Known, records: Sequence[LeakRecord]) -> dict[str, Values]:
    providers = {provider_of(node) or "unknown" for node in known.living()} | {record.provider for record in records}
    leaked = [record for record in records if is_leaked(record)]
    return {
        "navarch_leaked_instances": {
            (name,): float(sum(record.provider == name for record in leaked)) for name in providers
        },
        "navarch_leaked_dollars_per_hour": {
            (name,): dollars(record for record in leaked if record.provider == name) for name in providers
        },
    }


def _nodes(known: Known) -> dict[str, Values]:
    records = [stored.record for stored in known.nodes.values()]
    counts = count_statuses((node, known.health_of(node.node)) for node in records)
    gpus: Counter[tuple[str, ...]] = Counter()
    health: dict[tuple[str, ...], float] = {}
    for node in known.living():
        gpus[(provider_of(node) or "unknown",)] += len(node.registration.gpus) if node.registration else 0
        verdict = health_of(node, known.health_of(node.node))
        health[node.node, verdict.value] = _HEALTH_VALUE.get(verdict, 0.0)
    return {
        "navarch_nodes_total": {(status.value,): float(count) for status, count in counts.items()},
        "navarch_gpus_total": {labels: float(count) for labels, count in gpus.items()},
        "navarch_node_health_status": health,
    }


def _pools(known: Known) -> dict[str, Values]:
    nodes: dict[tuple[str, ...], float] = {}
    dollars: dict[tuple[str, ...], float] = defaultdict(float)
    counts: dict[str, Counter[Status]] = defaultdict(Counter)
    for node in known.living():
        counts[node.pool][known.status_of(node)] += 1
        if node.instance is not None and node.instance.price_per_hour is not None:
            dollars[node.pool, node.instance.provider] += node.instance.price_per_hour
    for pool in sorted({*counts, *known.pools}):
        for status in Status:
            if status is not Status.TERMINATED:
                nodes[pool, status.value] = float(counts[pool][status])
    return {
        "navarch_pool_nodes": nodes,
        "navarch_pool_nodes_desired": {(pool,): float(stored.record.desired) for pool, stored in known.pools.items()},
        "navarch_cost_dollars_per_hour": dict(dollars),
    }
