"""Machines that are processes: what a crash, a stolen pid or a damaged file may not do to them.

Machines here are `sleep` in place of an agent, so that they boot at once.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
import pytest

from navarch_common.clock import ManualClock
from navarch_common.config.providers import LocalProvider
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud import local, local_files
from navarch_provisioner.cloud.base import InvalidLaunch, Machine, Upstream
from navarch_provisioner.cloud.local import LocalCloud
from navarch_provisioner.cloud.local_files import MachineFile

IMMORTAL = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "instances"


@pytest.fixture
async def cloud(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalCloud]:
    run_instead(monkeypatch, ["/bin/sleep", "600"])
    made = another(root)
    yield made
    for process in inhabitants(root):
        process.kill()
    await made.close()


def run_instead(monkeypatch: pytest.MonkeyPatch, program: list[str]) -> None:
    monkeypatch.setattr(local, "command_of", lambda *_: program)


def another(root: Path, clock: ManualClock | None = None) -> LocalCloud:
    return LocalCloud("near", LocalProvider(gpu_count=4), root, clock or ManualClock(), grace_s=0.3)


def request(node: str = "n1", **changes: object) -> LaunchRequest:
    made = LaunchRequest(
        node=node, pool="p", cluster="c", installation="i", generation=1, provider="near",
        instance_type="x", token=f"token-{node}", agent_env={"NAVARCH_NATS_URL": "nats://127.0.0.1:9"},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def inhabitants(root: Path) -> list[psutil.Process]:
    """Every living process that stands in a directory below `root`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(root):
                found.append(process)
        except psutil.Error:
            continue
    return found


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kept(root: Path, node: str = "n1") -> MachineFile:
    return msgspec.json.decode((root / node / "machine.json").read_bytes(), type=MachineFile)


async def test_a_machine_keeps_its_files_where_the_contract_says(cloud: LocalCloud, root: Path) -> None:
    await cloud.launch(request())
    (process,) = inhabitants(root)
    assert int((root / "n1" / "pid").read_text()) == process.pid == kept(root).pid
    assert (root / "n1" / "kmsg").read_bytes() == b""
    assert (root / "n1" / "agent.log").exists()
    assert os.getsid(process.pid) == process.pid, "a session of its own: our Ctrl-C is none of its business"


async def test_an_agent_is_told_who_it_is_and_none_of_our_secrets(
    cloud: LocalCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAVARCH_AUTH_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    await cloud.launch(request(generation=3))
    (process,) = inhabitants(root)
    async with asyncio.timeout(5):
        while "NAVARCH_NATS_URL" not in (env := process.environ()):
            await asyncio.sleep(0.01)  # Between two programs a process has no environment.
    assert "secret" not in env.values()
    assert {name: value for name, value in env.items() if name.startswith("NAVARCH_")} == {
        "NAVARCH_NATS_URL": "nats://127.0.0.1:9",
        "NAVARCH_AGENT_NODE_ID": "n1",
        "NAVARCH_AGENT_POOL": "p",
        "NAVARCH_AGENT_GENERATION": "3",
        "NAVARCH_AGENT_DRIVER": "fake",
        "NAVARCH_AGENT_GPU_COUNT": "4",
        "NAVARCH_AGENT_BOOT_ID": kept(root).boot_id,
        "NAVARCH_AGENT_KMSG": str(root / "n1" / "kmsg"),
        "NAVARCH_AGENT_DATA_DIR": str(root / "n1" / "agent"),
    }


async def test_two_who_launch_at_once_make_one_machine(cloud: LocalCloud, root: Path) -> None:
    machines = await asyncio.gather(*(each.launch(request()) for each in (cloud, another(root), another(root))))
    assert len({machine.instance_id for machine in machines}) == 1
    assert len(inhabitants(root)) == 1
    assert names(root) == ["n1"]


async def test_a_half_made_machine_does_not_exist_and_the_next_launch_makes_it(cloud: LocalCloud, root: Path) -> None:
    draft = MachineFile(instance_id="n1.1", request=request(), gpu_count=4, launched_at=ManualClock().now())
    local_files.Homes(root).draft(draft)  # Whoever was about to boot it was killed here.
    assert await cloud.find("token-n1") is None
    assert list(await cloud.list_machines("c")) == []
    assert (await cloud.launch(request())).state is ProviderState.RUNNING
    assert len(inhabitants(root)) == 1


CHILD = """
import asyncio, sys
from pathlib import Path
from navarch_provisioner.cloud import local
from navarch_common.clock import SystemClock
from navarch_common.config.providers import LocalProvider
from navarch_common.model.node import LaunchRequest
import msgspec
local.command_of = lambda *_: ["/bin/sleep", "600"]
cloud = local.LocalCloud("near", LocalProvider(gpu_count=4), Path(sys.argv[1]), SystemClock())
order = msgspec.json.decode(sys.argv[2], type=LaunchRequest)
print("go", flush=True)
asyncio.run(cloud.launch(order))
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(8))
async def test_a_launch_cut_off_anywhere_is_one_machine_in_the_end(cloud: LocalCloud, root: Path, seed: int) -> None:
    with start(sys.executable, "-c", CHILD, str(root), msgspec.json.encode(request()).decode()) as launcher:
        assert launcher.stdout is not None
        await asyncio.to_thread(launcher.stdout.readline)
        await asyncio.sleep(random.Random(seed).uniform(0, 0.08))
        launcher.kill()
    machines = [await cloud.launch(request()), await cloud.launch(request())]
    await asyncio.sleep(0.15)  # A starter whose parent was killed may still be on its way.
    assert {machine.instance_id for machine in machines} == {"n1.1"}
    assert [process.pid for process in inhabitants(root)] == [kept(root).pid]
    assert (await running(cloud)).state is ProviderState.RUNNING


async def running(cloud: LocalCloud) -> Machine:
    machine = await cloud.get("n1.1")
    assert machine is not None
    return machine


async def test_a_pid_that_another_process_got_is_not_the_machine(cloud: LocalCloud, root: Path) -> None:
    machine = await cloud.launch(request())
    (process,) = inhabitants(root)
    process.kill()
    process.wait(5)
    bystander = start("/bin/sleep", "600")
    try:
        stolen = msgspec.structs.replace(kept(root), pid=bystander.pid, started_at=kept(root).started_at - 60)
        (root / "n1" / "machine.json").write_bytes(msgspec.json.encode(stolen))
        assert (await running(cloud)).state is ProviderState.GONE
        await cloud.terminate(machine.instance_id, machine.tags)
        assert bystander.poll() is None, "nobody but the machine is signalled"
    finally:
        bystander.kill()
        bystander.communicate()


async def test_a_clock_that_was_set_kills_no_machine(cloud: LocalCloud, root: Path) -> None:
    await cloud.launch(request())
    moved = msgspec.structs.replace(kept(root), started_at=kept(root).started_at + 3600)
    (root / "n1" / "machine.json").write_bytes(msgspec.json.encode(moved))
    assert (await running(cloud)).state is ProviderState.RUNNING


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"instance_id": "n1.1"}', b"\0" * 400], ids=["empty", "torn", "part", "zeros"]
)
async def test_a_machine_whose_file_is_damaged_is_ended_and_set_aside(
    cloud: LocalCloud, root: Path, damage: bytes
) -> None:
    await cloud.launch(request("n2"))
    await cloud.launch(request("n1"))
    (root / "n1" / "machine.json").write_bytes(damage)
    assert [machine.tags.node for machine in await cloud.list_machines("c")] == ["n2"]
    assert await cloud.get("n1.1") is None
    assert [process.pid for process in inhabitants(root)] == [kept(root, "n2").pid]
    (aside,) = (name for name in names(root) if name.startswith(".damaged-n1-"))
    assert (root / aside / "agent.log").exists(), "a person may want to look"
    assert (await cloud.launch(request("n1"))).state is ProviderState.RUNNING


async def test_a_directory_that_cannot_be_read_is_no_empty_list(cloud: LocalCloud, root: Path) -> None:
    await cloud.launch(request())
    (root / "n1" / "machine.json").unlink()
    (root / "n1" / "machine.json").mkdir()
    with pytest.raises(Upstream, match="cannot read"):
        await cloud.list_machines("c")


async def test_a_machine_that_does_not_listen_has_its_power_cut(
    cloud: LocalCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, IMMORTAL)
    machine = await cloud.launch(request())
    await asyncio.sleep(0.1)
    await cloud.terminate(machine.instance_id, machine.tags)
    assert not [process for process in inhabitants(root) if process.pid == kept(root).pid]
    assert kept(root).power == "ended"
    assert not (root / "n1" / "pid").exists(), "nobody shall signal who gets that number next"


async def test_a_machine_that_is_stopped_by_a_signal_is_not_gone_and_can_be_ended(
    cloud: LocalCloud, root: Path
) -> None:
    machine = await cloud.launch(request())
    os.kill(kept(root).pid, signal.SIGSTOP)
    assert (await running(cloud)).state is ProviderState.RUNNING
    await cloud.terminate(machine.instance_id, machine.tags)
    assert inhabitants(root) == []


async def test_a_termination_that_was_cut_off_is_finished_by_the_next(cloud: LocalCloud, root: Path) -> None:
    machine = await cloud.launch(request())
    begun = msgspec.structs.replace(kept(root), power="ending")
    (root / "n1" / "machine.json").write_bytes(msgspec.json.encode(begun))
    assert (await running(cloud)).state is ProviderState.STOPPING
    await cloud.terminate(machine.instance_id, machine.tags)
    assert (await running(cloud)).state is ProviderState.GONE
    assert inhabitants(root) == []


async def test_a_power_off_that_was_cut_off_ends_in_one_machine_when_it_is_powered_on(
    cloud: LocalCloud, root: Path
) -> None:
    machine = await cloud.launch(request())
    begun = msgspec.structs.replace(kept(root), power="stopping")
    (root / "n1" / "machine.json").write_bytes(msgspec.json.encode(begun))
    await cloud.power_on(machine.instance_id, machine.tags)
    assert [process.pid for process in inhabitants(root)] == [kept(root).pid]
    assert kept(root).boots == 2


async def test_a_new_boot_has_a_new_id_and_an_empty_kernel_log(cloud: LocalCloud, root: Path) -> None:
    machine = await cloud.launch(request())
    first = kept(root).boot_id
    (root / "n1" / "kmsg").write_text("a line of the first boot\n")
    await cloud.power_off(machine.instance_id, machine.tags)
    assert (await running(cloud)).state is ProviderState.STOPPING
    await cloud.power_on(machine.instance_id, machine.tags)
    assert kept(root).boot_id != first
    assert (root / "n1" / "kmsg").read_bytes() == b""


async def test_a_node_has_one_machine_at_a_time_and_one_in_each_generation(cloud: LocalCloud, root: Path) -> None:
    first = await cloud.launch(request())
    second = request(token="second", generation=2)
    with pytest.raises(InvalidLaunch, match="has a machine already"):
        await cloud.launch(second)
    await cloud.terminate(first.instance_id, first.tags)
    with pytest.raises(InvalidLaunch, match="has a machine already"):
        await cloud.launch(request(token="again"))
    assert (await cloud.launch(second)).instance_id == "n1.2"
    assert (await running(cloud)).state is ProviderState.GONE
    assert len(inhabitants(root)) == 1


async def test_ended_machines_are_forgotten_but_for_the_newest(
    cloud: LocalCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files, "ENDED_KEPT", 2)
    clock = ManualClock()
    patient = another(root, clock)
    machines = []
    for number in range(4):
        machines.append(await patient.launch(request(f"n{number}")))
        await patient.terminate(machines[-1].instance_id, machines[-1].tags)
        clock.advance(timedelta(minutes=1))
    assert len(names(root)) == 4, "for an hour a token means its machine"
    clock.advance(timedelta(hours=2))
    await patient.terminate(machines[-1].instance_id, machines[-1].tags)
    assert names(root) == ["n2", "n3"]


async def test_an_agent_that_cannot_be_run_is_no_machine(
    cloud: LocalCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, [str(root / "no-such-program")])
    with pytest.raises(Upstream, match="did not boot"):
        await cloud.launch(request())
    assert await cloud.find("token-n1") is None
    assert names(root) == []


async def test_machines_of_another_provider_over_the_same_directory_are_not_listed(
    cloud: LocalCloud, root: Path
) -> None:
    await cloud.launch(request("n1"))
    await cloud.launch(request("n2", provider="other"))
    assert [machine.tags.node for machine in await cloud.list_machines("c")] == ["n1"]


def test_what_is_written_of_a_machine_is_what_the_starter_expects() -> None:
    """The starter knows the file by its keys alone: it runs without our packages."""
    draft = MachineFile(instance_id="n1.1", request=request(), gpu_count=4, launched_at=ManualClock().now())
    assert {"power", "boots", "boot_id", "pid", "started_at"} <= json.loads(msgspec.json.encode(draft)).keys()
