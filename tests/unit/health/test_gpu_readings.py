"""From what a driver reads to what is thought of the node: each reading by the default policy, and how it is taken back."""

from __future__ import annotations

import random

import pytest

from navarch_agent.checks import from_kernel
from navarch_agent.gpu import DriverState, Sample
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.gpu_checks import GpuChecks
from navarch_agent.log import KernelRecord
from navarch_common.events.kinds import NodeRecovered
from navarch_common.events.messages import Observation
from navarch_common.model.gpu import GpuSample
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import Drain
from navarch_common.xid import parse_line
from navarch_health.fold import Limits, fold_report
from navarch_health.life import heard
from navarch_health.policy import default_policy
from support.health_world import BOOT, STATUS, T0, context, node, observation, record, report, seconds

BUSY = Sample(state=DriverState.OK, gpus=(GpuSample(index=3, utilization_ratio=0.9),))


class Machine:
    """A simulated driver, the agent's checks of it, and the record of health."""

    def __init__(self) -> None:
        self.driver, self.checks = FakeGpuDriver("training-aaaaaaa", random.Random(1)), GpuChecks()
        self.node, self.turn = node(), 0
        registration = self.node.registration
        assert registration is not None
        self.gpus = registration.gpus
        change = heard(record(), self.node, BOOT, "ok", context())
        assert change is not None
        self.record: HealthRecord = change.record

    async def look(self) -> tuple[object, ...]:
        """A look each minute, whose observations are folded. Returns the events."""
        self.turn += 1
        details = await self.driver.details()
        sample = await self.driver.sample()
        at = T0 + seconds(60 * self.turn)
        seen = self.checks.on_sample(sample, self.gpus, at)
        seen += self.checks.on_details(details, BUSY, self.gpus, at)
        return self.fold(*seen)

    def fold(self, *seen: Observation) -> tuple[object, ...]:
        if not seen:
            return ()
        said = report(*seen, sequence=self.turn + 1)
        judge = default_policy().judge
        change = fold_report(self.record, self.node, said, judge, Limits(), context(60.0 * self.turn)).change
        assert change is not None
        self.record = change.record
        return change.events


CASES = {
    "remap pending": ({"remap_pending": True}, STATUS.DEGRADED, "reset_gpu", "memory-repair-waits"),
    "remap failed": ({"remap_failed": True}, STATUS.UNHEALTHY, "drain_and_replace", "memory-repair-failed-by-counter"),
    "retirement pending": ({"retirement_pending": True}, STATUS.DEGRADED, "reset_gpu", "memory-repair-waits"),
    "pages retired": ({"retired_pages": 63}, STATUS.DEGRADED, "none", "memory-pages-retired"),
    "uncorrectable, by a driver with verdicts": (
        {"ecc_uncorrected": 1}, STATUS.DEGRADED, "reset_gpu", "ecc-uncorrectable-counted",
    ),
    "uncorrectable, by a driver without": (
        {"ecc_uncorrected": 1, "recovery_action": None}, STATUS.UNHEALTHY, "reset_gpu", "ecc-uncorrectable",
    ),
    "the driver asks for a reset": ({"recovery_action": 1}, STATUS.UNHEALTHY, "reset_gpu", "driver-verdict-reset"),
    "the driver asks for a reboot": ({"recovery_action": 2}, STATUS.UNHEALTHY, "reboot_node", "driver-verdict-reboot"),
    "a link down": ({"nvlinks_up": 17}, STATUS.DEGRADED, "none", "links-lost"),
    "narrow": ({"pcie_width": 8}, STATUS.DEGRADED, "none", "links-lost"),
    "slow under load": ({"pcie_generation": 3}, STATUS.DEGRADED, "none", "links-lost"),
    "fabric": ({"fabric_status": 5}, STATUS.DEGRADED, "none", "links-lost"),
    "hot memory": ({"temperature_memory_c": 99.0}, STATUS.DEGRADED, "none", "clocks-held-down"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_reading_is_judged_and_taken_back_when_it_is_over(case: str) -> None:
    readings, status, action, rule = CASES[case]
    machine = Machine()
    assert await machine.look() == ()
    machine.driver.change(3, **readings)
    await machine.look()
    assert (machine.record.status, machine.record.action, machine.record.rule) == (status, action, rule)
    assert "GPU 3" in machine.record.reason
    machine.driver.restore()
    machine.driver.change(3, retired_pages=0, retirement_pending=False)
    events = await machine.look()
    assert machine.record.status == STATUS.HEALTHY
    assert [type(event) for event in events] == [NodeRecovered]


async def test_clocks_that_are_held_down_degrade_once_it_lasts() -> None:
    machine = Machine()
    machine.driver.change(3, throttle=0x80)
    await machine.look()
    await machine.look()
    assert machine.record.status == STATUS.HEALTHY
    await machine.look()
    assert (machine.record.status, machine.record.rule) == (STATUS.DEGRADED, "clocks-held-down")


async def test_a_lost_gpu_condemns_the_node_and_what_ran_there_is_dead() -> None:
    machine = Machine()
    machine.driver.lose(3)
    await machine.look()
    assert (machine.record.status, machine.record.action) == (STATUS.UNHEALTHY, "drain_and_replace")
    assert (machine.record.code, machine.record.takes_work) == ("gpu_lost", True)


async def test_what_is_over_uncovers_what_else_there_is() -> None:
    machine = Machine()
    machine.driver.change(3, remap_pending=True, pcie_width=8)
    await machine.look()
    assert machine.record.rule == "memory-repair-waits"
    machine.driver.restore()
    machine.driver.change(3, pcie_width=8)
    await machine.look()
    assert (machine.record.status, machine.record.rule) == (STATUS.DEGRADED, "links-lost")


def test_an_end_that_overtakes_its_beginning_wins() -> None:
    machine = Machine()
    began = observation(event_type="memory", gpu_index=3, metrics={"kind": "remap_failed", "ended": False})
    ended = observation(20, event_type="memory", gpu_index=3, metrics={"kind": "remap_failed", "ended": True})
    late = fold_report(
        fold_report(
            machine.record, machine.node, report(ended, sequence=9), default_policy().judge, Limits(), context(20)
        ).change.record,
        machine.node, report(began, sequence=8), default_policy().judge, Limits(), context(21),
    )  # fmt: skip
    assert late.change is None or late.change.record.status == STATUS.HEALTHY


async def test_a_node_that_is_being_replaced_is_not_taken_back() -> None:
    machine = Machine()
    machine.driver.change(3, remap_failed=True)
    await machine.look()
    machine.node = node(drain=Drain(cause="fault", actor="health", since=T0, deadline=T0 + seconds(60)))
    machine.driver.restore()
    await machine.look()
    assert machine.record.status == STATUS.UNHEALTHY


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", "drain_and_replace"),
        ("NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x62:0xffff:2351)", "reboot_node"),
    ],
)
def test_what_the_driver_prints_of_a_gpu_without_an_xid_condemns_the_node(line: str, action: str) -> None:
    machine = Machine()
    fault = parse_line(line)
    assert fault is not None
    seen = from_kernel(fault, KernelRecord(sequence=1, at=T0, text=line, boot_id=BOOT, place="1"), machine.gpus)
    assert seen is not None
    machine.fold(seen)
    assert (machine.record.status, machine.record.action) == (STATUS.UNHEALTHY, action)
