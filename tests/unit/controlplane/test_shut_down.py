"""A stop leaves no process, whatever was under way: machines that are processes, and whoever waited for them is gone.

Machines here are `sleep` in place of an agent.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from navarch_common.clock import ManualClock
from navarch_common.config.providers import LocalProvider
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud import local
from navarch_provisioner.cloud.base import Upstream
from navarch_provisioner.cloud.fake_wire import Order
from navarch_provisioner.cloud.local import LocalCloud
from navarch_provisioner.cloud.local_files import Home
from navarch_sim.fake_cloud.world import World


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalCloud]:
    monkeypatch.setattr(local, "command_of", lambda *_: ["/bin/sleep", "600"])
    made = another(tmp_path)
    yield made
    await made.shut_down("c")
    await made.close()


def another(root: Path) -> LocalCloud:
    return LocalCloud("near", LocalProvider(), root, ManualClock(), grace_s=0.3)


def request(node: str = "n1", **changes: object) -> LaunchRequest:
    made = LaunchRequest(
        node=node, pool="p", cluster="c", installation="i", generation=1, provider="near", instance_type="x",
        token=f"token-{node}",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def processes(root: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(root):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01, 0.03, 0.06, 0.1, 0.2])
async def test_a_launch_that_is_cut_off_leaves_no_process_behind(
    cloud: LocalCloud, tmp_path: Path, after_s: float
) -> None:
    launch = asyncio.create_task(cloud.launch(request()))
    await asyncio.sleep(after_s)
    launch.cancel()
    await asyncio.wait({launch})
    await cloud.shut_down("c")
    assert processes(tmp_path) == []
    await asyncio.sleep(0.2)
    assert processes(tmp_path) == []
    found = await another(tmp_path).find("token-n1")
    assert found is None or found.state is ProviderState.STOPPING


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05, 0.15])
async def test_a_machine_whose_boot_is_cut_off_is_off_and_boots_once_afterwards(
    cloud: LocalCloud, tmp_path: Path, after_s: float
) -> None:
    machine = await cloud.launch(request())
    await cloud.power_off(machine.instance_id, machine.tags)
    boot = asyncio.create_task(cloud.power_on(machine.instance_id, machine.tags))
    await asyncio.sleep(after_s)
    boot.cancel()
    await asyncio.wait({boot})
    await cloud.shut_down("c")
    assert processes(tmp_path) == []
    after = another(tmp_path)
    await after.power_on(machine.instance_id, machine.tags)
    assert len(processes(tmp_path)) == 1
    await after.shut_down("c")


async def test_a_termination_that_was_begun_ends_the_machine_for_good(cloud: LocalCloud, tmp_path: Path) -> None:
    await cloud.launch(request())
    home = Home(tmp_path / "n1")
    kept = home.read()
    assert kept is not None
    home.write(msgspec.structs.replace(kept, power="ending"))
    await cloud.shut_down("c")
    assert processes(tmp_path) == []
    machine = await another(tmp_path).get("n1.1")
    assert machine is None or machine.state is ProviderState.GONE


async def test_a_machine_that_died_by_itself_is_not_called_powered_off(cloud: LocalCloud, tmp_path: Path) -> None:
    await cloud.launch(request())
    [pid] = processes(tmp_path)
    psutil.Process(pid).kill()
    while processes(tmp_path):
        await asyncio.sleep(0.005)
    await cloud.shut_down("c")
    machine = await another(tmp_path).get("n1.1")
    assert machine is not None
    assert machine.state is ProviderState.GONE


async def test_nothing_is_made_after_it(cloud: LocalCloud, tmp_path: Path) -> None:
    await cloud.shut_down("c")
    with pytest.raises(Upstream, match="shut down"):
        await cloud.launch(request())
    assert processes(tmp_path) == []


async def test_machines_of_another_cluster_are_not_ours_to_stop(cloud: LocalCloud, tmp_path: Path) -> None:
    await cloud.launch(request(cluster="other"))
    await cloud.shut_down("c")
    assert len(processes(tmp_path)) == 1
    await cloud.shut_down("other")
    assert processes(tmp_path) == []


def test_a_simulated_cloud_shuts_all_down_in_one_step_and_forgets_none() -> None:
    changes: list[str] = []
    world = World(ManualClock(), random.Random(1), lambda machine: changes.append(machine.power))
    for index in range(50):
        world.launch(Order(request=request(f"n{index}")))
    elsewhere = world.launch(Order(request=request("m", cluster="other")))
    assert len(world.shut_down("c", "near")) == 50
    assert world.shut_down("c", "near") == []
    assert {machine.state for machine in world.machines("c")} == {ProviderState.STOPPING}
    assert (world.on, world.get(elsewhere.instance_id).state) == (1, ProviderState.PENDING)
    assert changes[-50:] == ["off"] * 50


async def test_a_provider_that_is_only_closed_as_a_service_on_its_own_does_lets_its_machines_live(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    await cloud.launch(request())
    await cloud.close()
    assert len(processes(tmp_path)) == 1
