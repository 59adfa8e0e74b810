"""`navarch-agent` as a process of its own, against a real NATS: what a provider starts and kills."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from navarch_common.bus.base import Bus
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.events import decode
from navarch_common.events.messages import HealthReport, Leaving, LifecycleReport, Registered
from navarch_common.events.subjects import Subjects

pytestmark = pytest.mark.integration

LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
RSS_BYTES_MAX = 60_000_000


class Machine:
    """What a provider has of a machine: a directory, and an agent's process in it."""

    def __init__(self, directory: Path, bus: Bus, nats_url: str, subjects: Subjects) -> None:
        self.directory = directory
        self.bus = bus
        self.subjects = subjects
        self.taken: dict[str, list[Any]] = {"health": [], "lifecycle": []}
        self.environment = {
            "PATH": os.environ["PATH"],
            "NAVARCH_NATS_URL": nats_url,
            "NAVARCH_AGENT_NODE_ID": "training-a",
            "NAVARCH_AGENT_POOL": "training",
            "NAVARCH_AGENT_KMSG": str(directory / "kmsg"),
            "NAVARCH_AGENT_DRIVER": "fake",
            "NAVARCH_AGENT_DATA_DIR": str(directory / "data"),
            "NAVARCH_AGENT_BOOT_ID": "boot-1",
            "NAVARCH_AGENT_SUBJECT_PREFIX": subjects.prefix,
            "NAVARCH_AGENT_HEARTBEAT_INTERVAL": "200ms",
        }

    @contextmanager
    def agent(self, **more: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "navarch_agent.main"],
            env={**self.environment, **more},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def printk(self, text: str) -> None:
        with (self.directory / "kmsg").open("a") as file:
            file.write(text)

    async def take_reports(self, kind: str) -> None:
        """Take reports as their consumer does, until cancelled."""
        types: Any = HealthReport if kind == "health" else LifecycleReport
        subject = f"{self.subjects.prefix}.reports.*.{kind}"
        async with self.bus.consume(self.subjects.stream("REPORTS"), kind, subject) as deliveries:
            async for delivery in deliveries:
                self.taken[kind].append(decode(delivery.data, types))
                await delivery.ack()

    async def reports(self, kind: str, count: int, *, timeout_s: float = 10.0) -> list[Any]:
        async with asyncio.timeout(timeout_s):
            while len(self.taken[kind]) < count:
                await asyncio.sleep(0.01)
        return list(self.taken[kind])


@pytest.fixture
async def machine(nats_url: str, unique: str, tmp_path: Path) -> AsyncIterator[Machine]:
    bus = await JetStreamBus.connect(nats_url, name="test", rng=random.Random(1))
    subjects = Subjects(unique)
    await bus.ensure_streams(subjects.streams())
    machine = Machine(tmp_path, bus, nats_url, subjects)
    takers = [asyncio.create_task(machine.take_reports(kind)) for kind in machine.taken]
    yield machine
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
    await bus.close()


async def test_a_line_in_its_kmsg_is_a_report_in_the_stream(machine: Machine) -> None:
    with machine.agent() as process:
        (registered,) = await machine.reports("lifecycle", 1)
        assert isinstance(registered, Registered)
        assert registered.registration.gpus[3].pci == "0000:3b:00"
        machine.printk(LOST)
        (report,) = await machine.reports("health", 1)
        assert report.observations[0].code == 79
        assert report.observations[0].gpu_uuid == registered.registration.gpus[3].uuid
        process.terminate()
        assert process.wait(10) == 0
    leaving = (await machine.reports("lifecycle", 2))[-1]
    assert isinstance(leaving, Leaving)
    assert leaving.sequence > report.sequence > registered.sequence


async def test_kill_9_loses_nothing_and_repeats_nothing(machine: Machine) -> None:
    with machine.agent() as process:
        await machine.reports("lifecycle", 1)
        machine.printk(LOST)
        await machine.reports("health", 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    machine.printk(LOST.replace("3b", "07"))
    with machine.agent():
        one, two = await machine.reports("health", 2)
        assert [one.observations[0].gpu_index, two.observations[0].gpu_index] == [3, 0]
        assert two.sequence > one.sequence
        await asyncio.sleep(0.3)
        assert len(await machine.reports("health", 2)) == 2
        assert len(await machine.reports("lifecycle", 2)) == 2


async def test_an_agent_outlives_its_nats(machine: Machine, killable_servers: Any) -> None:
    with machine.agent():
        await machine.reports("lifecycle", 1)
        await asyncio.to_thread(killable_servers.nats.kill)
        machine.printk(LOST)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(killable_servers.nats.start)
        (report,) = await machine.reports("health", 1, timeout_s=20)
        assert report.observations[0].code == 79


async def test_it_is_small(machine: Machine) -> None:
    with machine.agent() as process:
        await machine.reports("lifecycle", 1)
        machine.printk(LOST)
        await machine.reports("health", 1)
        rss = psutil.Process(process.pid).memory_info().rss
        print(f"agent: {rss / 1e6:.1f} MB resident")
        assert rss < RSS_BYTES_MAX


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"NAVARCH_AGENT_NODE_ID": "Not An Id"}, 2, "NAVARCH_AGENT_NODE_ID: expected a node id (1 to 63 of a-z, 0-9 and '-'), found 'Not An Id'"),
        ({"NAVARCH_AGENT_CREDENTIALS": "/nowhere/agent.creds"}, 2, "--credentials: /nowhere/agent.creds cannot be read"),
        ({"NAVARCH_NATS_URL": ""}, 2, "--server is missing; it may also come from NAVARCH_AGENT_SERVER or NAVARCH_NATS_URL"),
    ],
)  # fmt: skip
def test_a_wrong_setting_ends_it_with_one_line(tmp_path: Path, change: dict[str, str], code: int, words: str) -> None:
    machine = Machine(tmp_path, None, "nats://127.0.0.1:1", Subjects())  # type: ignore[arg-type]
    with machine.agent(**change) as process:
        assert process.wait(10) == code
        assert process.stderr is not None
        assert process.stderr.read().strip() == f"navarch-agent: {words}"


async def test_a_second_agent_in_the_same_directory_says_who_is_there(machine: Machine) -> None:
    with machine.agent():
        await machine.reports("lifecycle", 1)
        with machine.agent() as second:
            assert await asyncio.to_thread(second.wait, 10) == 1
            assert second.stderr is not None
            assert "another agent already works in" in second.stderr.read()


def test_without_nats_it_waits_and_stops_when_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, None, "nats://127.0.0.1:1", Subjects())  # type: ignore[arg-type]
    with machine.agent() as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.terminate()
        assert process.wait(10) == 0
