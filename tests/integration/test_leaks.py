"""Leaked machines, a lost installation and safe mode through the real command, against a cloud of its own."""

import asyncio
import json
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from navarch_common.clock import SystemClock
from navarch_common.config.providers import FakeProvider
from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import CloudProvider, Machine, ProviderContext
from navarch_provisioner.cloud.fake import make
from support.fleet import Fleet, fleet_in

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.slow]

T = TypeVar("T")
POOL = "pools: {{training: {{provider: {name}, instance_type: h100-8x, min_nodes: 2, max_nodes: 6}}}}\n"
FAKE = "providers: {cloud: {type: fake, boot_time: 100ms}}\n" + POOL.format(name="cloud")
LOCAL = (
    "providers: {here: {type: local, gpu_count: 1}}\n"
    "server: {http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}\n"
) + POOL.format(name="here")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path, FAKE) as fleet:
        fleet.start()
        fleet.until_active(2)
        yield fleet


def at_the_cloud(fleet: Fleet, act: Callable[[CloudProvider], Awaitable[T]]) -> T:
    """Does something at the fleet's own cloud, past Navarch."""

    async def run() -> T:
        context = ProviderContext(data_dir=fleet.data_dir, clock=SystemClock(), rng=random.Random(1))
        cloud = make("cloud", FakeProvider(), context)
        try:
            return await act(cloud)
        finally:
            await cloud.close()

    return asyncio.run(run())


NOWHERE = "nats://127.0.0.1:9"


def launch(fleet: Fleet, node: str, *, installation: str, number: int, nats_url: str = "") -> Machine:
    """`nats_url` is where its agent looks for us; empty: where we are."""
    runtime = fleet.runtime()
    assert runtime is not None
    request = LaunchRequest(
        node=node, pool="training", cluster="default", installation=installation, generation=1, provider="cloud",
        instance_type="h100-8x", token=f"{number:032d}", agent_env={"NAVARCH_NATS_URL": nats_url or runtime["nats"]},
    )  # fmt: skip
    return at_the_cloud(fleet, lambda cloud: cloud.launch(request))


def there(fleet: Fleet) -> set[str]:
    machines = at_the_cloud(fleet, lambda cloud: cloud.list_machines("default"))
    return {machine.instance_id for machine in machines if machine.state.value not in ("gone", "stopping")}


def leaks(fleet: Fleet) -> dict[str, dict[str, Any]]:
    found = json.loads(fleet.navarch("gc", "--dry-run", "-o", "json").stdout)
    return {leak["instance_id"]: leak for leak in found}


def test_leaked_machines_are_shown_adopted_and_ended_on_an_operators_word(fleet: Fleet) -> None:
    installation = json.loads(fleet.navarch("status", "-o", "json").stdout)["installation"]
    [first, *_] = sorted(fleet.active())
    lost = launch(fleet, "training-lost001", installation=installation, number=1)
    useless = launch(fleet, "training-lost002", installation=installation, number=2)
    double = launch(fleet, first, installation=installation, number=3, nats_url=NOWHERE)
    theirs = launch(fleet, "training-their01", installation="theirs", number=4, nats_url=NOWHERE)
    strangers = {lost.instance_id, useless.instance_id, double.instance_id, theirs.instance_id}
    found = fleet.until(lambda: leaks(fleet) if strangers <= set(leaks(fleet)) else None, within_s=60, what="all four")
    assert {one.instance_id: found[one.instance_id]["kind"] for one in (lost, double, theirs)} == {
        lost.instance_id: "unrecorded", double.instance_id: "duplicate", theirs.instance_id: "foreign",
    }  # fmt: skip
    table = fleet.navarch("gc", "--dry-run").stdout
    assert all(one in table for one in strangers)

    refused = fleet.navarch("gc", useless.instance_id, check=False)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    foreign = fleet.navarch("gc", theirs.instance_id, "--yes", check=False)
    assert (foreign.returncode, "theirs" in foreign.stderr) == (1, True)
    fleet.navarch("freeze", "--level", "terminate", "--reason", "an audit")
    frozen = fleet.navarch("gc", double.instance_id, "--yes", check=False)
    assert (frozen.returncode, "an audit" in frozen.stderr) == (4, True)
    fleet.navarch("unfreeze")

    assert "ended" in fleet.navarch("gc", "--yes", "--reason", "a double").stdout
    assert double.instance_id not in there(fleet)
    assert {lost.instance_id, useless.instance_id, theirs.instance_id} <= there(fleet)
    assert "ended" in fleet.navarch("gc", useless.instance_id, "--yes").stdout
    assert "adopted" in fleet.navarch("adopt", lost.instance_id, "--yes", "--reason", "it is ours").stdout
    assert "training-lost001" in {node["node"] for node in fleet.nodes()}
    assert {lost.instance_id, theirs.instance_id} <= there(fleet)
    assert set(leaks(fleet)) == {theirs.instance_id}
    assert [one["instance_id"] for one in fleet.events("instance.collected")] == [
        double.instance_id,
        useless.instance_id,
    ]
    assert first in fleet.active()


def forget_everything(fleet: Fleet) -> None:
    """Store, bus and installation are gone; the machines, and the ports by which they know us, are not."""
    for name in ("nats", "redis", "installation"):
        path = fleet.data_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def test_a_first_start_beside_an_unknown_installation_waits_and_takes_it_over_on_an_operators_word(
    tmp_path: Path,
) -> None:
    with fleet_in(tmp_path, LOCAL) as fleet:
        fleet.start()
        before = fleet.until_active(2)
        pids = fleet.machines()
        ours = json.loads(fleet.navarch("status", "-o", "json").stdout)["installation"]
        fleet.kill()
        for process in fleet.processes():
            if process.name() in ("nats-server", "redis-server", "valkey-server"):
                process.kill()
                process.wait()
        forget_everything(fleet)
        fleet.start()

        def safe_mode() -> dict[str, Any] | None:
            found: dict[str, Any] | None = json.loads(fleet.navarch("status", "-o", "json").stdout)["safe_mode"]
            return found

        safe = fleet.until(safe_mode, what="safe mode")
        assert (safe["code"], ours in safe["reason"]) == ("unknown-installation", True)
        assert fleet.machines() == pids
        assert fleet.nodes() == []
        fleet.until(lambda: leaks(fleet), what="the machines")
        assert fleet.navarch("adopt", check=False).returncode == 2
        assert ours in fleet.navarch("adopt", "--yes", "--reason", "moved").stdout
        assert fleet.until_active(2, within_s=60) == before
        fleet.until(lambda: safe_mode() is None, what="safe mode left")
        assert fleet.machines() == pids
        assert (fleet.data_dir / "installation").read_text().strip() == ours
        assert fleet.navarch("safe-mode", "leave", "--reason", "x", "--yes", check=False).returncode == 1


def test_a_first_start_beside_an_unknown_installation_may_leave_it_alone(tmp_path: Path) -> None:
    with fleet_in(tmp_path, LOCAL) as fleet:
        fleet.start()
        before = fleet.until_active(2)
        fleet.kill()
        for process in fleet.processes():
            if process.name() in ("nats-server", "redis-server", "valkey-server"):
                process.kill()
                process.wait()
        forget_everything(fleet)
        fleet.start()
        fleet.until(lambda: len(leaks(fleet)) == 2, what="their machines")
        said = fleet.navarch("safe-mode", "leave", "--reason", "they belong to somebody else", "--yes").stdout
        assert "left" in said
        after = fleet.until_active(2, within_s=40)
        assert not after & before
        assert set(fleet.machines()) == before | after
        assert {leak["would"] for leak in leaks(fleet).values()} == {"leave"}
