"""The status that people see: one word for a node, derived from its phase, its verdict and its cordons, never stored.

The first that applies wins: what has ended is terminated whatever its GPUs were thought to be, what is on its way out is
draining, what is broken is unhealthy even where an operator cordoned it too.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import COMING, ENDED, NodeRecord, Phase


class Status(StrEnum):
    """In the order of a node's life. `ACTIVE` means usable."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    CORDONED = "cordoned"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    TERMINATED = "terminated"


_ON_ITS_WAY_OUT = frozenset({Phase.DRAINING, Phase.TERMINATING, Phase.REGISTRATION_TIMEOUT})
_NOT_YET = COMING | {Phase.REPAIRING}


def health_of(node: NodeRecord, health: HealthRecord | None) -> HealthStatus:
    """What is thought of the machine behind the node now. A verdict about an earlier generation says nothing of it."""
    if health is None or health.generation != node.generation:
        return HealthStatus.UNKNOWN
    return health.status


def status_of(node: NodeRecord, health: HealthRecord | None) -> Status:
    if node.phase in ENDED:
        return Status.TERMINATED
    if node.phase in _ON_ITS_WAY_OUT:
        return Status.DRAINING
    if node.phase is Phase.QUARANTINED or health_of(node, health) is HealthStatus.UNHEALTHY:
        return Status.UNHEALTHY
    if node.cordons:
        return Status.CORDONED
    if node.phase in _NOT_YET:
        return Status.PROVISIONING
    return Status.ACTIVE


def count_statuses(nodes: Iterable[tuple[NodeRecord, HealthRecord | None]]) -> dict[Status, int]:
    """How many nodes have each status; those that no node has are 0."""
    counts = Counter(status_of(node, health) for node, health in nodes)
    return {status: counts[status] for status in Status}


_HEARSAY = "provider-says-"
"""Codes of what a provider answered when it was asked: part of the story, and no reason for a status."""


def reason_of(node: NodeRecord, health: HealthRecord | None) -> str:
    """Why the node has its status, in one sentence; empty where there is nothing to say beyond the word itself."""
    match status_of(node, health):
        case Status.UNHEALTHY if health is not None and health.reason and node.phase is not Phase.QUARANTINED:
            return health.reason
        case Status.CORDONED:
            cordon = min(node.cordons.values(), key=lambda cordon: cordon.at)
            return cordon.reason
        case Status.ACTIVE if health is not None and health_of(node, health) is not HealthStatus.HEALTHY:
            return health.reason
        case Status.PROVISIONING if node.blocked is not None:
            return node.blocked.text
        case Status.DRAINING if node.drain is not None and node.drain.blocked_by:
            return node.drain.blocked_by
    own = (reason.text for reason in reversed(node.reasons) if not reason.code.startswith(_HEARSAY))
    return next(own, node.replacement_reason)
