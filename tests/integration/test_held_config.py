"""A file that would take many nodes, on a running fleet: nothing is terminated before an operator says so, whoever restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.plane import Plane, plane_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {heartbeat_interval: 1s, autoscale_interval: 1s}
providers: {here: {type: local}}
pools:
  training:
    {provider: here, instance_type: h100-8x, min_nodes: 4, max_nodes: 6, cooldown: 0s, scale_down: {idle_after: 1s}}
"""
SMALL = CONFIG.replace("min_nodes: 4, max_nodes: 6", "min_nodes: 1, max_nodes: 1")
QUIET_S = 4.0
"""Long enough for idle nodes that are too many to go."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    with plane_in(tmp_path, CONFIG, nodes=4) as plane:
        yield plane


def held(plane: Plane) -> str:
    """The id of the change that waits, once it is told."""
    return str(plane.hears("pool.change-held").event["change"])


def nothing_goes(plane: Plane, machines: list[str]) -> None:
    time.sleep(QUIET_S)
    assert sorted(plane.machines()) == sorted(machines)
    assert not plane.heard("node.draining")
    assert json.loads(plane.navarch("pool", "status", "training", "-o", "json"))["desired"] == 4


def test_a_file_that_takes_three_of_four_nodes_waits_until_it_is_approved(plane: Plane) -> None:
    machines, file = plane.machines(), plane.fleet.config
    new = file.with_name("new.yaml")
    new.write_text(SMALL)
    asked = plane.fleet.navarch("plan", "--config", str(new), "--exit-code", check=False)
    assert asked.returncode == 2
    assert "max_nodes 6 -> 1" in asked.stdout
    assert "would wait for `navarch approve`" in asked.stdout

    file.write_text(SMALL)
    change = held(plane)
    nothing_goes(plane, machines)
    for shown in (("status",), ("plan",), ("pool", "status", "training")):
        plane.until(lambda shown=shown: change in plane.navarch(*shown), f"{change} in `navarch {' '.join(shown)}`")

    plane.kill_and_restart()
    plane.settled(4)
    nothing_goes(plane, machines)
    assert len(plane.heard("pool.change-held")) == 1
    assert "3 of 4 nodes" in plane.navarch("approve", change, "--dry-run")

    plane.navarch("approve", change, "--reason", "the project is over", "--wait")
    (left,) = plane.settled(1, within_s=60)
    plane.until(lambda: plane.machines() == [left], "the machines to be gone")
    assert change not in plane.navarch("status")


def test_a_file_that_is_cancelled_takes_nothing_and_the_next_one_counts(plane: Plane) -> None:
    machines, file = plane.machines(), plane.fleet.config
    file.write_text(SMALL)
    plane.navarch("cancel", held(plane), "--reason", "a slip of the hand")
    plane.kill_and_restart()
    plane.settled(4)
    nothing_goes(plane, machines)

    plane.forget()
    file.write_text(CONFIG.replace("min_nodes: 4, max_nodes: 6", "min_nodes: 3, max_nodes: 3"))
    plane.hears("cluster.config-applied")
    plane.settled(3, within_s=60)
