"""Operators' own checks: what they print, what it tells, and that none of them can hang, flood or deceive the agent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from navarch_agent import main
from navarch_agent.conditions import AGAIN
from navarch_agent.custom_checks import CHECKS_MAX, BadOutput, CustomChecks, Finding, read_output
from navarch_agent.custom_run import CheckDirectory
from navarch_agent.custom_watch import CustomWatch
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.host import SimulatedHost
from navarch_agent.identity import Identity
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_agent.settings import parse
from navarch_agent.spool import Spool
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.bus.memory import MemoryServer
from navarch_common.clock import SystemClock
from navarch_common.events.messages import Observation
from navarch_common.events.subjects import Subjects
from navarch_common.model.gpu import Gpu
from navarch_common.model.health import HealthStatus
from navarch_common.telemetry import Telemetry
from navarch_health.fold import Limits, fold_report
from navarch_health.policy import default_policy
from support.ears import Ears
from support.health_world import context, node, record

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GPUS = (Gpu(index=0, uuid="GPU-0", serial="100", pci="0000:07:00"), Gpu(index=1, uuid="GPU-1", pci="0000:3b:00"))


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "OK - all is well\n", Finding(status="ok", message="OK - all is well")),
        (1, "WARN 91 % used | '/ used'=91%;90;95 inodes=12\nmore", Finding(
            status="warning", message="WARN 91 % used", metrics={"/ used": 91.0, "inodes": 12.0},
        )),
        (2, "", Finding(status="critical")),
        (3, "cannot tell", Finding(status="unknown", message="cannot tell")),
        (0, ' {"status": "critical", "message": "NCCL is slow", "gpu": 1, "metrics": {"gbps": 12.5}} ', Finding(
            status="critical", message="NCCL is slow", gpu=1, metrics={"gbps": 12.5},
        )),
    ],
)  # fmt: skip
def test_both_forms_are_read(code: int, output: str, expected: Finding) -> None:
    assert read_output(code, output) == (expected,)


def test_json_may_be_a_list_of_findings() -> None:
    found = read_output(0, '[{"status": "ok"}, {"status": "warning", "gpu": 1}]')
    assert [(one.status, one.gpu) for one in found] == [("ok", None), ("warning", 1)]
    assert read_output(0, "[]") == ()


@pytest.mark.parametrize(
    ("code", "output", "says"),
    [
        (4, "odd", "exit code 4: expected 0"),
        (-9, "", "exit code -9"),
        (0, '{"status": "fine"}', "fine"),
        (0, '{"state": "ok"}', "state"),
        (0, '{"status": "ok"', "JSON"),
        (0, "[" * 60_000, "JSON"),
        (0, "[" + ",".join(['{"status": "ok"}'] * 65) + "]", "65 findings: expected at most 64"),
    ],
)
def test_what_is_neither_form_is_refused_with_what_was_expected(code: int, output: str, says: str) -> None:
    with pytest.raises(BadOutput, match=says):
        read_output(code, output)


@given(st.integers(-64, 255), st.text(max_size=300))
def test_no_output_breaks_the_reader(code: int, output: str) -> None:
    try:
        findings = read_output(code, output)
    except BadOutput:
        return
    CustomChecks().look("some", findings, GPUS, NOW)


def told(observations: list[Observation]) -> list[tuple[int, object, object]]:
    return [(one.gpu_index, one.metrics["level"], one.metrics["ended"]) for one in observations]


def test_a_finding_is_told_when_it_begins_worsens_lasts_and_is_over() -> None:
    checks, warns = CustomChecks(), Finding(status="warning", message="slow", metrics={"gbps": 12.5})
    (began,) = checks.look("nccl", (warns,), GPUS, NOW)
    assert (began.event_type, began.metrics["kind"], began.metrics["gbps"]) == ("check", "check-nccl", 12.5)
    assert (began.message, began.source, began.gpu_index) == ("slow", "check", -1)
    assert checks.look("nccl", (warns,), GPUS, NOW) == []
    worse = (Finding(status="critical", message="stands"),)
    assert told(checks.look("nccl", worse, GPUS, NOW)) == [(-1, "critical", False)]
    assert told(checks.look("nccl", worse, GPUS, NOW + AGAIN)) == [(-1, "critical", False)]
    assert checks.look("nccl", (Finding(status="unknown"),), GPUS, NOW + 2 * AGAIN) == [], "it cannot tell"
    assert told(checks.look("nccl", (Finding(status="ok"),), GPUS, NOW + 2 * AGAIN)) == [(-1, "ok", True)]
    assert checks.look("nccl", (Finding(status="ok"),), GPUS, NOW + 2 * AGAIN) == []


def test_findings_of_gpus_stand_apart_and_what_is_no_longer_mentioned_is_over() -> None:
    checks, at = CustomChecks(), NOW
    both = (Finding(status="warning", gpu=0), Finding(status="critical", gpu=1))
    first, second = checks.look("bandwidth", both, GPUS, at)
    assert (first.gpu_uuid, first.pci, second.gpu_uuid) == ("GPU-0", "0000:07:00", "GPU-1")
    assert told(checks.look("bandwidth", both[:1], GPUS, at)) == [(1, "ok", True)]
    assert checks.look("bandwidth", (Finding(status="unknown"),), GPUS, at) == []
    checks.tell_again()
    assert told(checks.look("bandwidth", both[:1], GPUS, at + timedelta(seconds=1))) == [(0, "warning", False)]
    assert told(checks.look("bandwidth", (), GPUS, at)) == [(0, "ok", True)]
    checks.forget("bandwidth")
    assert checks.known == set()


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    directory = tmp_path / "checks"
    directory.mkdir(mode=0o755)

    def write(name: str, body: str, mode: int = 0o755) -> Path:
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(mode)
        return path

    return write


class Heard:
    """In a reporter's place."""

    def __init__(self) -> None:
        self.reports: list[Observation] = []

    def health(self, observation: Observation, *, trace: str = "", place: str | None = None) -> None:
        self.reports.append(observation)


class Machine:
    """A `CustomWatch` whose reports are kept."""

    def __init__(self, directory: Path, deadline_s: float = 10.0) -> None:
        rng, clock = random.Random(1), SystemClock()
        parts = Parts(
            identity=Identity(node="training-a", pool="training", generation=1, boot_id="boot-1"),
            bus=MemoryServer().connect(),
            subjects=Subjects(),
            driver=FakeGpuDriver("training-a", rng),
            kernel_log=MemoryKernelLog(clock, "boot-1"),
            spool=Spool("boot-1"),
            host=SimulatedHost("training-a", clock),
            telemetry=Telemetry(rng),
            clock=clock,
            rng=rng,
        )
        self.heard = Heard()
        reporter = cast("Reporter", self.heard)
        runner = CheckDirectory(directory, deadline_s)
        self.watch = CustomWatch(parts, runner, reporter, lambda: 60.0, lambda: GPUS)

    async def round(self) -> list[tuple[object, object]]:
        """What one round of all checks reports."""
        self.heard.reports.clear()
        await self.watch.round()
        return [(one.metrics["kind"], one.metrics["level"]) for one in self.heard.reports]


async def test_each_executable_is_run_and_its_word_reported(write: Write) -> None:
    write("10_Disk.sh", "echo 'WARN nearly full | used=91%'; exit 1")
    gpu = write("nccl", """echo '{"status": "critical", "gpu": 1, "message": "slow"}'""")
    write("README.md", "exit 2", mode=0o644)
    machine = Machine(gpu.parent)
    assert await machine.round() == [("check-10-disk", "warning"), ("check-nccl", "critical")]
    assert machine.heard.reports[1].gpu_uuid == "GPU-1"
    assert await machine.round() == []
    write("10_Disk.sh", "echo fine")
    assert await machine.round() == [("check-10-disk", "ok")]
    gpu.unlink()
    assert await machine.round() == [("check-nccl", "ok")], "a check that was taken away leaves nothing behind"


HOPELESS = {
    "never ends": ("sleep 600", "did not end within 1 s"),
    "leaves somebody behind who holds its output": ("sleep 600 & exit 0", "did not end within 1 s"),
    "floods": ("yes", "more than 65536 bytes"),
    "fails": ("exit 127", "exit code 127"),
    "is no program": ("\\x00", ""),
}


@pytest.mark.parametrize("case", HOPELESS)
async def test_a_check_that_cannot_be_believed_neither_begins_nor_ends_anything(write: Write, case: str) -> None:
    body, says = HOPELESS[case]
    path = write("check", "exit 2")
    machine = Machine(path.parent, deadline_s=1.0)
    assert await machine.round() == [("check-check", "critical")]
    write("check", body)
    with capture_logs() as logs:
        assert await machine.round() == []
        assert await machine.round() == []
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == 1, "it is said once"
    assert says in warnings[0]
    write("check", "exit 0")
    assert await machine.round() == [("check-check", "ok")]


async def test_a_check_is_killed_with_all_that_it_started(write: Write, tmp_path: Path) -> None:
    path = write("check", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    await Machine(path.parent, deadline_s=1.0).round()
    child = int((tmp_path / "child").read_text())
    if psutil.pid_exists(child):  # an orphan waits for its new parent to take note
        assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("who", ["file", "directory"])
async def test_what_others_may_write_to_is_not_run(write: Write, who: str) -> None:
    path = write("check", "exit 2")
    (path if who == "file" else path.parent).chmod(0o777)
    with capture_logs() as logs:
        assert await Machine(path.parent).round() == []
    assert "may be written to by others (mode 777): expected `chmod go-w`" in logs[0]["event"]


async def test_a_directory_that_is_not_there_ends_nothing(write: Write) -> None:
    path = write("check", "exit 2")
    machine = Machine(path.parent)
    assert await machine.round() == [("check-check", "critical")]
    away = path.parent.rename(path.parent.with_name("away"))
    assert await machine.round() == []
    away.rename(path.parent)
    assert await machine.round() == []


async def test_more_checks_than_can_be_run_or_two_of_a_name_are_said(write: Write) -> None:
    paths = [write(f"check{n:03d}", "exit 1") for n in range(CHECKS_MAX + 1)]
    machine = Machine(paths[0].parent)
    with capture_logs() as logs:
        assert await machine.round() == []
        paths[0].unlink()
        paths[1].rename(paths[2].with_suffix(".sh"))
        assert await machine.round() == []
    assert f"has {CHECKS_MAX + 1} checks: expected at most {CHECKS_MAX}" in logs[0]["event"]
    assert "check002 and check002.sh are both called check002" in logs[1]["event"]


@pytest.mark.integration
async def test_the_agent_runs_them_and_the_default_policy_degrades_the_node(
    nats_url: str, unique: str, tmp_path: Path, write: Write
) -> None:
    path = write("nccl.sh", """echo '{"status": "critical", "gpu": 3, "message": "slow", "metrics": {"gbps": 12}}'""")
    subjects = Subjects(unique)
    bus = await JetStreamBus.connect(nats_url, name="test", rng=random.Random(1))
    await bus.ensure_streams(subjects.streams())
    ears = Ears(bus, subjects)
    arguments = (
        f"--server {nats_url} --node-id training-aaaaaaa --pool training --driver fake --boot-id boot-1 "
        f"--data-dir {tmp_path}/data --kmsg {tmp_path}/kmsg --checks {path.parent}"
    )

    settings = parse(arguments.split(), {"NAVARCH_AGENT_SUBJECT_PREFIX": unique})
    tasks = [asyncio.create_task(ears.take()), asyncio.create_task(main.run(settings))]
    said = await ears.next()
    change = fold_report(record(), node(), said, default_policy().judge, Limits(), context())
    assert change.change is not None
    after = change.change.record
    assert (after.status, after.code, after.rule) == (HealthStatus.DEGRADED, "check-nccl", "custom-check")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await bus.close()
