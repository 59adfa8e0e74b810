"""The one word that people see of a node."""

from typing import Any

import pytest

from navarch_common.model.base import Reason
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import Cordon, Phase
from navarch_common.model.status import count_statuses, health_of, reason_of, status_of
from support.gateway_world import START, health, node

CORDONED = {"cordons": {"operator:ada": Cordon(reason="upgrade", at=START)}}
BAD = health(status=HealthStatus.UNHEALTHY, reason="Xid 79")


def told(code: str, text: str) -> Reason:
    return Reason(at=START, code=code, text=text, actor="provisioner")


@pytest.mark.parametrize(
    ("fields", "verdict", "status"),
    [
        ({}, health(), "active"),
        ({}, None, "active"),
        ({}, health(status=HealthStatus.SUSPECT), "active"),
        ({}, health(status=HealthStatus.DEGRADED), "active"),
        ({}, BAD, "unhealthy"),
        ({"generation": 2}, BAD, "active"),
        (CORDONED, None, "cordoned"),
        (CORDONED, BAD, "unhealthy"),
        ({"phase": Phase.QUARANTINED, **CORDONED}, None, "unhealthy"),
        *[({"phase": phase}, None, "provisioning") for phase in
          (Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN, Phase.BOOTING, Phase.VALIDATING, Phase.REPAIRING)],
        ({"phase": Phase.BOOTING, **CORDONED}, None, "cordoned"),
        *[({"phase": phase, **CORDONED}, BAD, "draining") for phase in
          (Phase.DRAINING, Phase.TERMINATING, Phase.REGISTRATION_TIMEOUT)],
        *[({"phase": phase, **CORDONED}, BAD, "terminated") for phase in (Phase.TERMINATED, Phase.LAUNCH_FAILED)],
    ],
)  # fmt: skip
def test_the_first_that_applies_is_the_status(
    fields: dict[str, Any], verdict: HealthRecord | None, status: str
) -> None:
    assert status_of(node(**fields), verdict) == status


def test_every_phase_has_a_status() -> None:
    for phase in Phase:
        assert status_of(node(phase=phase), None)


def test_no_verdict_is_unknown_not_healthy() -> None:
    assert health_of(node(), None) is HealthStatus.UNKNOWN
    assert health_of(node(generation=2), health()) is HealthStatus.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "verdict", "reason"),
    [
        ({}, BAD, "Xid 79"),
        (CORDONED, health(), "upgrade"),
        ({}, health(status=HealthStatus.DEGRADED, reason="hot"), "hot"),
        ({"replacement_reason": "n3 failed"}, health(), "n3 failed"),
        (
            {"reasons": (told("active", "found healthy"), told("provider-says-running", "runs"))},
            health(),
            "found healthy",
        ),
        (
            {"phase": Phase.BOOTING, "blocked": Reason(at=START, code="boot", text="boots", actor="provisioner")},
            None,
            "boots",
        ),
    ],
)
def test_the_reason_fits_the_status(fields: dict[str, Any], verdict: HealthRecord | None, reason: str) -> None:
    assert reason_of(node(**fields), verdict) == reason


def test_statuses_that_no_node_has_are_counted_as_none() -> None:
    counts = count_statuses([(node(), None), (node("n2", phase=Phase.TERMINATED), None)])
    assert {status.value: count for status, count in counts.items() if count} == {"active": 1, "terminated": 1}
    assert len(counts) == 6
