from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from navarch_common.config import Config
from navarch_common.config.providers import AwsProvider, FakeProvider, LocalProvider
from navarch_common.model.node import NODE, Instance, NodeRecord, Phase
from navarch_common.store.base import Stored
from navarch_controlplane.power import hosted_here, to_power_off

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = Config(
    providers={
        "here": LocalProvider(),
        "child": FakeProvider(),
        "elsewhere": FakeProvider(url="http://10.0.0.1:8090"),
        "aws": AwsProvider(),
    }
)


@dataclass(frozen=True)
class Case:
    phase: Phase = Phase.ACTIVE
    provider: str = "here"
    powered_off: bool = False


def node(case: Case) -> Stored[NodeRecord]:
    instance = Instance(
        provider=case.provider, instance_id="i", provider_id="p", state_at=NOW, launched_at=NOW
    )  # fmt: skip
    record = NodeRecord(
        node="n", pool="p", generation=1, phase=case.phase, phase_since=NOW, created_at=NOW, instance=instance,
        powered_off=case.powered_off,
    )  # fmt: skip
    return Stored(NODE.key("n"), record, 1)


def test_only_machines_that_run_beside_us_go_with_us() -> None:
    assert hosted_here(CONFIG) == {"here", "child"}


@pytest.mark.parametrize("phase", [Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.QUARANTINED])
def test_a_machine_that_is_meant_to_be_there_tomorrow_is_marked_with_a_reason(phase: Phase) -> None:
    ((_, record),) = to_power_off([node(Case(phase))], CONFIG, NOW)
    assert record.powered_off
    assert record.phase is phase
    assert record.reasons[-1].code == "powered-off"


@pytest.mark.parametrize(
    "case",
    [
        Case(phase=Phase.TERMINATING), Case(phase=Phase.TERMINATED), Case(phase=Phase.LAUNCH_UNKNOWN),
        Case(provider="aws"), Case(provider="elsewhere"), Case(powered_off=True),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_leaving_or_not_here_or_off_already_is_left_alone(case: Case) -> None:
    assert to_power_off([node(case)], CONFIG, NOW) == []
