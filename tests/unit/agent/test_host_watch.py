"""The watch over a host: one look at a time, none that anyone waits for, and none at all on a simulated machine."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from navarch_agent import main
from navarch_agent.commands import Periods
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.host import SimulatedHost
from navarch_agent.host_look import LinuxHostReader
from navarch_agent.host_reading import HostReader, HostReading
from navarch_agent.host_watch import HostWatch
from navarch_agent.identity import Identity
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_agent.service import Agent
from navarch_agent.settings import AgentSettings
from navarch_agent.simulated import SimulatedFleet
from navarch_agent.spool import Spool
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.bus.memory import MemoryBus, MemoryServer
from navarch_common.clock import SystemClock
from navarch_common.events import encode
from navarch_common.events.messages import HealthReport, Observation, Probe
from navarch_common.events.subjects import Subjects
from navarch_common.model.health import HealthStatus
from navarch_common.telemetry import Telemetry
from navarch_health.fold import Limits, fold_report
from navarch_health.life import heard
from navarch_health.policy import default_policy
from support.ears import Ears
from support.health_world import context, node, record, registration
from support.host_tree import HostTree

NODE = "training-a"
SUBJECTS = Subjects()


class Hung:
    """A host whose file system does not answer before it is `released`."""

    def __init__(self) -> None:
        self.doing = "the file system at /data"
        self.looks = 0
        self.released = threading.Event()

    def look(self) -> HostReading:
        self.looks += 1
        self.released.wait()
        return HostReading()


class Broken:
    doing = "nothing"

    def look(self) -> HostReading:
        raise LookupError("nobody thought of this")


class Heard:
    """In a reporter's place."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []

    def health(self, observation: Observation, *, trace: str = "", place: str | None = None) -> None:
        self.observations.append(observation)

    @property
    def kinds(self) -> list[tuple[object, object]]:
        return [(one.metrics["kind"], one.metrics["ended"]) for one in self.observations]


def parts(bus: MemoryBus, reader: HostReader | None = None) -> Parts:
    rng, clock = random.Random(1), SystemClock()
    return Parts(
        identity=Identity(node=NODE, pool="training", generation=1, boot_id="boot-1"),
        bus=bus,
        subjects=SUBJECTS,
        driver=FakeGpuDriver(NODE, rng),
        kernel_log=MemoryKernelLog(clock, "boot-1"),
        spool=Spool("boot-1"),
        host=SimulatedHost(NODE, clock),
        telemetry=Telemetry(rng),
        clock=clock,
        rng=rng,
        host_reader=reader,
    )


def watch_of(reader: HostReader) -> tuple[HostWatch, Heard]:
    heard = Heard()
    return HostWatch(parts(MemoryServer().connect()), reader, cast("Reporter", heard), lambda: 60.0), heard


@pytest.fixture
def hung() -> Any:
    hung = Hung()
    yield hung
    hung.released.set()


async def test_a_look_that_hangs_is_told_and_no_other_begins_before_it_comes_back(
    hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostWatch, "GRACE_S", 0.0)
    watch, heard = watch_of(hung)
    for minute in range(50):
        await watch.turn(60.0 * minute)
    assert heard.kinds == [("host_look_hangs", False)]
    assert "the file system at /data" in heard.observations[0].message
    assert hung.looks == 1
    assert watch._looking is not None
    hung.released.set()
    await watch._looking
    await watch.turn(3000.0)
    assert heard.kinds == [("host_look_hangs", False), ("host_look_hangs", True)]
    await watch.turn(3060.0)
    assert hung.looks == 2


async def test_a_look_that_hangs_holds_nobody_up(hung: Hung, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostWatch, "GRACE_S", 3600.0)
    watch, _ = watch_of(hung)
    running = asyncio.create_task(watch.run())
    while hung.looks == 0:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    threads = [thread for thread in threading.enumerate() if thread.name == "host-look"]
    assert threads
    assert all(thread.daemon for thread in threads), "the process may end without it"


async def test_a_look_that_fails_in_an_unforeseen_way_says_nothing_and_ends_nobody() -> None:
    watch, heard = watch_of(Broken())
    with capture_logs() as logs:
        for minute in range(3):
            await watch.turn(60.0 * minute)
    assert heard.observations == []
    assert [entry["event"] for entry in logs] == ["the look at the host failed: nothing is known of it"]


async def test_each_change_of_the_host_is_a_report(tmp_path: Path) -> None:
    tree = HostTree(tmp_path)
    watch, heard = watch_of(tree.reader())
    await watch.turn(0.0)
    assert heard.observations == []
    tree.used["/data"] = (0.97, 0.99)
    tree.port("mlx5_1", "state", "1: DOWN\n")
    await watch.turn(60.0)
    assert heard.kinds == [("disk_full", False), ("inodes_full", False), ("port_down", False)]
    del tree.used["/data"]
    await watch.turn(120.0)
    assert len(heard.kinds) == 3
    tree.used["/data"] = (0.5, 0.5)
    tree.port("mlx5_1", "state", "4: ACTIVE\n")
    await watch.turn(180.0)
    assert heard.kinds[3:] == [("disk_full", True), ("inodes_full", True), ("port_down", True)]


# The agent as a whole.


@pytest.fixture
async def server() -> MemoryServer:
    server = MemoryServer()
    await server.connect().ensure_streams(SUBJECTS.streams())
    return server


def judged(report: HealthReport, before: Any = None) -> Any:
    """What the default policy makes of a report about a node that was healthy."""
    of = node(report.node, registration=registration(report.boot_id))
    if before is None:
        change = heard(record(of), of, report.boot_id, "ok", context())
        assert change is not None
        before = change.record
    change = fold_report(before, of, report, default_policy().judge, Limits(), context(1.0)).change
    assert change is not None
    return change.record


async def test_what_a_host_suffers_reaches_the_bus_and_its_judge_and_so_does_its_end(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostWatch, "PERIOD_S_MIN", 0.0)
    tree, ears = HostTree(tmp_path), Ears(server.connect(), SUBJECTS)
    tree.used["/data"] = (0.97, 0.1)
    agent = Agent(parts(server.connect(), tree.reader()), Periods(heartbeat_s=0.05, health_check_s=0.01))
    tasks = [asyncio.create_task(ears.take()), asyncio.create_task(agent.run())]
    began = await ears.next()
    assert began.observations[0].metrics["kind"] == "disk_full"
    sick = judged(began)
    assert (sick.status, sick.rule, sick.action) == (HealthStatus.DEGRADED, "host-disk-full", "none")
    tree.used["/data"] = (0.5, 0.1)
    ended = await ears.next()
    assert ended.observations[0].metrics["ended"] is True
    assert judged(ended, sick).status == HealthStatus.HEALTHY
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_probe_that_asks_to_register_anew_has_the_host_told_again(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostWatch, "PERIOD_S_MIN", 0.0)
    tree, bus, ears = HostTree(tmp_path), server.connect(), Ears(server.connect(), SUBJECTS)
    tree.used["/data"] = (0.97, 0.1)
    agent = Agent(parts(server.connect(), tree.reader()), Periods(heartbeat_s=0.05, health_check_s=0.01))
    tasks = [asyncio.create_task(ears.take()), asyncio.create_task(agent.run())]
    first = await ears.next()
    await bus.request(
        SUBJECTS.probe(NODE), encode(Probe(node=NODE, at=datetime.now(UTC), register=True)), timeout_s=5.0
    )
    again = await ears.next()
    assert [one.metrics["kind"] for one in (*first.observations, *again.observations)] == ["disk_full", "disk_full"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_simulated_machine_has_no_task_for_its_host_and_starts_no_thread(server: MemoryServer) -> None:
    fleet = SimulatedFleet(server.connect(), SUBJECTS, clock=SystemClock())
    machine = fleet.machine(Identity(node=NODE, pool="training", generation=1, boot_id="boot-1"), random.Random(1))
    life = asyncio.create_task(machine.run())
    for _ in range(20):
        await asyncio.sleep(0)
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert f"{NODE}:pulse" in names
    assert f"{NODE}:host" not in names
    assert machine.agent._host is None
    life.cancel()
    await asyncio.wait([life])


@pytest.mark.parametrize(
    ("driver", "host_checks", "looks"), [("nvml", True, True), ("nvml", False, False), ("fake", True, False)]
)
def test_only_a_real_machine_is_looked_at_and_only_where_that_is_wanted(
    driver: Any, host_checks: bool, looks: bool
) -> None:
    settings = AgentSettings(server="nats://a:1", node="a", pool="p", driver=driver, host_checks=host_checks)
    assert isinstance(main._host_reader(settings), LinuxHostReader) is looks


@pytest.mark.integration
async def test_the_agent_of_a_real_machine_reports_its_host_over_nats(
    nats_url: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, kmsg = HostTree(tmp_path / "host"), tmp_path / "kmsg"
    tree.write("proc/self/mountinfo", "27 1 259:1 / / rw,relatime - ext4 /dev/nvme0n1p1 ro\n")
    kmsg.touch()
    monkeypatch.setattr(main, "LinuxHostReader", lambda data_dir: tree.reader())
    subjects = Subjects(unique)
    bus = await JetStreamBus.connect(nats_url, name="test", rng=random.Random(1))
    await bus.ensure_streams(subjects.streams())
    ears = Ears(bus, subjects)
    settings = AgentSettings(
        server=nats_url,
        node=NODE,
        pool="training",
        kmsg=kmsg,
        data_dir=tmp_path / "data",
        boot_id="boot-1",
        subject_prefix=unique,
    )
    tasks = [asyncio.create_task(ears.take()), asyncio.create_task(main.run(settings))]
    (observation,) = (await ears.next()).observations
    assert (observation.event_type, observation.source) == ("host", "host")
    assert (observation.metrics["kind"], observation.metrics["mount"]) == ("read_only", "/")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await bus.close()
