"""What should have been told of a node as it stands: the event of its phase, and that event once more. Pure.

Only of the phase that a node is in: what was lost of phases that are over no longer holds.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.model.node import NodeRecord, Phase
from navarch_provisioner.news import Why, tell


@dataclass(frozen=True, slots=True)
class Holds:
    """Something that holds of a node since a moment, and the kind of event that told of it."""

    kind: type[Event]
    since: datetime


def holds(record: NodeRecord) -> Holds | None:
    """None where no event tells of the phase, or nothing is known of when it began."""
    match record.phase:
        case Phase.PLANNED | Phase.LAUNCHING | Phase.LAUNCH_UNKNOWN:
            return Holds(kinds.NodePlanned, record.created_at) if record.launch is not None else None
        case Phase.ACTIVE:
            return Holds(kinds.NodeActive, record.active_at) if record.active_at is not None else None
        case Phase.DRAINING:
            return Holds(kinds.NodeDraining, record.drain.since) if record.drain is not None else None
    kind = _KINDS.get(record.phase)
    return None if kind is None else Holds(kind, record.phase_since)


_KINDS: dict[Phase, type[Event]] = {
    Phase.BOOTING: kinds.NodeLaunched,
    Phase.VALIDATING: kinds.NodeRegistered,
    Phase.REGISTRATION_TIMEOUT: kinds.NodeRegistrationTimeout,
    Phase.LAUNCH_FAILED: kinds.NodeLaunchFailed,
    Phase.TERMINATING: kinds.NodeTerminating,
    Phase.TERMINATED: kinds.NodeTerminated,
}


def told_again(record: NodeRecord, what: Holds, cluster: str, now: datetime) -> Event:
    """The event once more. It is told now, and says since when it holds."""
    said = record.reasons[-1].text if record.reasons else record.phase.value
    text = f"told again, since its event was lost: {record.phase.value} since {what.since.isoformat()}; {said}"
    return tell(what.kind, record, cluster, Why("told-again", text), now, **_fields(record, what))


def _fields(record: NodeRecord, what: Holds) -> dict[str, Any]:
    """What the first event said, as far as the record still knows it."""
    request = record.launch.request if record.launch is not None else None
    instance = record.instance
    asked = {"provider": request.provider, "instance_type": request.instance_type} if request is not None else {}
    machine = {"provider": instance.provider, "instance_id": instance.instance_id} if instance is not None else {}
    began = record.launch.intended_at if record.launch is not None else record.created_at
    waited_s = max((what.since - began).total_seconds(), 0.0)
    match what.kind:
        case kinds.NodePlanned:
            return {**asked, "replaces": record.replaces or ""}
        case kinds.NodeLaunched if instance is not None:
            return {
                **machine, "region": instance.region, "instance_type": instance.instance_type,
                "provider_id": instance.provider_id, "price_per_hour": instance.price_per_hour,
            }  # fmt: skip
        case kinds.NodeLaunchFailed:
            return {**asked, "attempt": record.launch.attempt if record.launch is not None else 1}
        case kinds.NodeRegistered if record.registration is not None:
            said = record.registration
            return {
                "boot_id": said.boot_id, "generation": record.generation, "hostname": said.hostname, "gpus": said.gpus,
            }  # fmt: skip
        case kinds.NodeRegistrationTimeout:
            return {"waited_s": waited_s}
        case kinds.NodeActive:
            return {"replaces": record.replaces or "", "boot_s": waited_s}
        case kinds.NodeDraining if record.drain is not None:
            left_s = (record.drain.deadline - record.drain.since).total_seconds()
            return {"cause": record.drain.cause, "deadline_s": max(left_s, 0.0)}
        case kinds.NodeTerminating:
            return {**machine, "replaced_by": record.replaced_by or ""}
        case kinds.NodeTerminated:
            return {**machine, "lived_s": max((what.since - record.created_at).total_seconds(), 0.0)}
    return {}
