"""Which event tells of a node as it stands, and that event once more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from fixtures.records import node_record
from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.events.codec import encode
from navarch_common.model.node import Drain, Launch, LaunchRequest, NodeRecord, Phase
from navarch_provisioner.untold import Holds, holds, told_again

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATER = T0 + timedelta(hours=1)
DRAIN = Drain(cause="operator", actor="operator:ada", since=LATER, deadline=LATER + timedelta(minutes=5))


REQUEST = LaunchRequest(
    node="training-1", pool="training", cluster="test", installation="i", generation=1, provider="cloud",
    instance_type="h100-8x", token="t",
)  # fmt: skip
LAUNCH = Launch(request=REQUEST, intended_at=T0, deadline=LATER)


def record(phase: Phase, **fields: Any) -> NodeRecord:
    return structs.replace(
        node_record(), **{"phase": phase, "phase_since": LATER, "created_at": T0, "launch": LAUNCH, **fields}
    )


@pytest.mark.parametrize(
    ("phase", "fields", "kind", "since"),
    [
        (Phase.PLANNED, {}, kinds.NodePlanned, T0),
        (Phase.LAUNCHING, {}, kinds.NodePlanned, T0),
        (Phase.LAUNCH_UNKNOWN, {}, kinds.NodePlanned, T0),
        (Phase.LAUNCH_FAILED, {}, kinds.NodeLaunchFailed, LATER),
        (Phase.BOOTING, {}, kinds.NodeLaunched, LATER),
        (Phase.VALIDATING, {}, kinds.NodeRegistered, LATER),
        (Phase.REGISTRATION_TIMEOUT, {}, kinds.NodeRegistrationTimeout, LATER),
        (Phase.ACTIVE, {"active_at": T0 + timedelta(minutes=3)}, kinds.NodeActive, T0 + timedelta(minutes=3)),
        (Phase.DRAINING, {"drain": DRAIN}, kinds.NodeDraining, LATER),
        (Phase.TERMINATING, {}, kinds.NodeTerminating, LATER),
        (Phase.TERMINATED, {}, kinds.NodeTerminated, LATER),
    ],
)
def test_each_phase_has_its_event_which_can_be_told_again(
    phase: Phase, fields: dict[str, Any], kind: type[Event], since: datetime
) -> None:
    node = record(phase, **fields)
    what = holds(node)
    assert what == Holds(kind, since)
    event = told_again(node, what, "test", LATER + timedelta(minutes=1))
    assert isinstance(event, kind)
    assert (event.node, event.pool, event.code) == (node.node, node.pool, "told-again")
    assert event.at >= since
    assert event.reason.startswith(f"told again, since its event was lost: {phase.value} since {since.isoformat()}")
    encode(event)


def test_what_was_never_told_of_is_not_told_again() -> None:
    """An adopted machine has no launch, and became no active node by us."""
    assert holds(record(Phase.PLANNED, launch=None)) is None
    assert holds(record(Phase.ACTIVE, active_at=None)) is None
    assert holds(record(Phase.QUARANTINED)) is None
