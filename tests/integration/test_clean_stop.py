"""A stop or a kill at any moment: no process stays that should not, and the next start has as many machines as wanted.

Real command, real processes. Moments are counted from the start of the command, or from what was asked of it.
"""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest

from support.fleet import Fleet, fleet_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POOL = "cluster: stopped\npools:\n  training: {{provider: it, instance_type: h100-8x, min_nodes: {nodes}, max_nodes: 20}}\n"
LOCAL = "providers:\n  it: {type: local}\n" + POOL.format(nodes=3)
FAKE = "providers:\n  it: {type: fake, boot_time: 200ms, failure_rate: 0.05, lost_reply_rate: 0.1}\n" + POOL.format(
    nodes=3
)
STOP_WITHIN_S = 10.0
NEVER = {"node.failed.v1", "node.suspect.v1", "node.registration-timeout.v1", "node.launch-failed.v1"}
"""What a stop may not cause."""

Ask = Callable[[Fleet], int]
"""Asks something of a settled fleet of three; returns how many nodes are wanted afterwards."""


def stop(fleet: Fleet, number: signal.Signals) -> None:
    """Stops it, at whatever point it is, and sees that nothing of it is left."""
    began = time.monotonic()
    os.killpg(fleet.process.pid, number)
    fleet.process.wait(timeout=STOP_WITHIN_S)
    assert time.monotonic() - began < STOP_WITHIN_S
    left = [process.cmdline() for process in fleet.processes()]
    assert not left, f"{left}\n{fleet.said}{fleet.log()}"


def running(fleet: Fleet) -> int:
    """How many machines run: processes, or what the simulated cloud says of its own."""
    cloud = fleet.data_dir / "fake-cloud" / "it" / "runtime.json"
    if not cloud.exists():
        return sum("navarch-agent" in " ".join(process.cmdline()) for process in fleet.processes())
    url = json.loads(cloud.read_text())["url"]
    try:
        with urllib.request.urlopen(f"{url}/v1/machines?cluster=stopped", timeout=5) as answer:
            machines = json.load(answer)["machines"]
    except (OSError, HTTPException):  # The weather.
        return -1
    return sum(machine["state"] in {"pending", "running"} for machine in machines)


def settle(fleet: Fleet, count: int) -> set[str]:
    nodes: set[str] = fleet.until_active(count, within_s=60)
    fleet.until(lambda: running(fleet) == count, within_s=10, what=f"{count} machines")
    return nodes


@pytest.mark.parametrize(
    ("config", "moments"),
    [(LOCAL, (0.9, 1.1, 1.4)), (FAKE, (1.0, 1.4))],
    ids=["local", "fake"],
)
def test_a_stop_while_it_starts_leaves_no_process_and_costs_no_node(
    tmp_path: Path, config: str, moments: tuple[float, ...]
) -> None:
    with fleet_in(tmp_path, config) as fleet:
        for index, moment in enumerate(moments):
            fleet.spawn()
            time.sleep(moment)
            stop(fleet, (signal.SIGINT, signal.SIGTERM)[index % 2])
        fleet.start()
        nodes = settle(fleet, 3)
        refused = {"launch_failed"} if config is FAKE else set()  # The weather: a launch that made nothing.
        assert {node["node"] for node in fleet.nodes("--all") if node["phase"] not in refused} == nodes
        assert not NEVER & {event["type"] for event in fleet.events()} - (
            {"node.launch-failed.v1"} if config is FAKE else set()
        )
        stop(fleet, signal.SIGTERM)


def grow(fleet: Fleet) -> int:
    fleet.navarch("pool", "scale", "training", "--nodes", "6")
    return 6


def break_a_gpu(fleet: Fleet) -> int:
    fleet.navarch("inject", min(fleet.active()), "xid", "79", "--gpu", "3")
    return 3


def terminate(fleet: Fleet) -> int:
    fleet.navarch("terminate", min(fleet.active()), "--yes", "--force", "--reason", "to see it end")
    return 3


@pytest.mark.long
@pytest.mark.parametrize("config", [LOCAL, FAKE], ids=["local", "fake"])
def test_a_stop_or_a_kill_in_the_middle_of_work_leaves_as_many_machines_as_wanted(tmp_path: Path, config: str) -> None:
    rounds: list[tuple[Ask, float, str]] = [
        (break_a_gpu, 0.1, "stop"), (terminate, 0.05, "kill"), (grow, 0.1, "stop"),
    ]  # fmt: skip
    with fleet_in(tmp_path, config) as fleet:
        fleet.start()
        settle(fleet, 3)
        for ask, moment, end in rounds:
            wanted = ask(fleet)
            time.sleep(moment)
            if end == "stop":
                stop(fleet, signal.SIGINT)
            else:
                fleet.kill()
            fleet.start()
            settle(fleet, wanted)
        stop(fleet, signal.SIGTERM)


def test_a_stop_that_comes_before_it_is_ready_takes_along_what_a_killed_one_left_running(tmp_path: Path) -> None:
    with fleet_in(tmp_path, LOCAL) as fleet:
        fleet.start()
        nodes = settle(fleet, 3)
        fleet.kill()
        fleet.spawn()
        fleet.until(
            lambda: any("nats-server" in process.name() for process in fleet.processes()), what="a server that starts"
        )
        stop(fleet, signal.SIGINT)
        fleet.start()
        assert settle(fleet, 3) == nodes
        assert not NEVER & {event["type"] for event in fleet.events()}
        stop(fleet, signal.SIGTERM)
