from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from navarch_common.clock import SystemClock
from navarch_common.config.providers import FakeProvider, LocalProvider
from navarch_common.model.node import NODE, Instance, Launch, LaunchRequest, NodeRecord, Phase
from navarch_common.store.base import Stored
from navarch_controlplane.power import to_power_off
from navarch_provisioner.cloud.base import ProviderContext
from navarch_provisioner.cloud.registry import Providers

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HERE = {"here", "child"}


@dataclass(frozen=True)
class Case:
    phase: Phase = Phase.ACTIVE
    provider: str = "here"
    powered_off: bool = False


def node(case: Case) -> Stored[NodeRecord]:
    instance = Instance(
        provider=case.provider, instance_id="i", provider_id="p", state_at=NOW, launched_at=NOW
    )  # fmt: skip
    request = LaunchRequest(
        node="n", pool="p", cluster="c", installation="i", generation=1, token="t", provider=case.provider, instance_type="h100-8x",
    )  # fmt: skip
    unproven = case.phase in (Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN)
    record = NodeRecord(
        node="n", pool="p", generation=1, phase=case.phase, phase_since=NOW, created_at=NOW,
        instance=None if unproven else instance, powered_off=case.powered_off,
        launch=Launch(request=request, intended_at=NOW, deadline=NOW + timedelta(minutes=10)),
    )  # fmt: skip
    return Stored(NODE.key("n"), record, 1)


def test_only_machines_that_run_beside_us_go_with_us(tmp_path: Path) -> None:
    providers = Providers(ProviderContext(tmp_path, SystemClock(), Random(1)))
    here = {"here": LocalProvider(), "child": FakeProvider()}
    providers.configure({**here, "elsewhere": FakeProvider(url="http://10.0.0.1:8090")})
    assert providers.hosted_here.keys() == HERE


def test_what_a_changed_entry_of_the_configuration_made_before_goes_too(tmp_path: Path) -> None:
    providers = Providers(ProviderContext(tmp_path, SystemClock(), Random(1)))
    providers.configure({"here": LocalProvider()})
    before = providers.get("here")
    providers.configure({"here": LocalProvider(gpu_count=2)})
    assert providers.hosted_here["here"] == [providers.get("here"), before]


@pytest.mark.parametrize("phase",
    [
        Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.QUARANTINED,
        Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN,
    ],
)  # fmt: skip
def test_a_machine_that_is_or_may_be_meant_to_be_there_tomorrow_is_marked_with_a_reason(phase: Phase) -> None:
    ((_, record),) = to_power_off([node(Case(phase))], HERE, NOW)
    assert record.powered_off
    assert record.phase is phase
    assert record.reasons[-1].code == "powered-off"


@pytest.mark.parametrize(
    "case",
    [
        Case(phase=Phase.TERMINATING), Case(phase=Phase.TERMINATED), Case(phase=Phase.PLANNED),
        Case(phase=Phase.LAUNCHING, provider="aws"), Case(phase=Phase.REGISTRATION_TIMEOUT),
        Case(provider="aws"), Case(provider="elsewhere"), Case(powered_off=True),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_leaving_or_not_here_or_off_already_is_left_alone(case: Case) -> None:
    assert to_power_off([node(case)], HERE, NOW) == []
