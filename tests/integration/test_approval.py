"""`automation: approve` on a running fleet: nothing is launched or replaced before an operator says so, from the first node on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fleet import fleet_in
from support.plane import FALLEN_OFF, Plane, xid

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
providers: {here: {type: local}}
server: {heartbeat_interval: 300ms, http_address: "127.0.0.1:0", address: "127.0.0.1:0"}
pools:
  training: {provider: here, instance_type: h100-8x, min_nodes: 2, max_nodes: 4, automation: approve}
"""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    with fleet_in(tmp_path, CONFIG) as fleet:
        fleet.start()
        plane = Plane(fleet)
        try:
            yield plane
        finally:
            plane.close()


def waiting(plane: Plane, about: str) -> dict[str, Any]:
    """The change about a node, or about the pool (empty), once `navarch plan` shows it."""

    def found() -> dict[str, Any] | None:
        said = json.loads(plane.navarch("plan", "training", "-o", "json"))
        return next((one for one in said["blocked"] if one["change"] and one["node"] == about), None)

    change: dict[str, Any] = plane.until(found, f"a change about {about or 'the pool'}", 30.0)
    return change


def test_each_change_waits_for_its_word_and_a_cancelled_one_for_none(plane: Plane) -> None:
    first = waiting(plane, "")
    assert "launch 2 nodes" in first["reason"]
    assert plane.machines() == []
    plane.navarch("approve", first["change"], "--reason", "the first nodes", "--wait")
    broken, other = sorted(plane.settled(2))

    plane.prints(broken, xid(FALLEN_OFF))
    change = waiting(plane, broken)
    assert f"navarch approve {change['change']}" in change["reason"]
    assert change["change"] in plane.navarch("pool", "status", "training")
    assert change["change"] in plane.navarch("explain", broken)
    plane.hears("pool.change-held")
    assert {one.holder for one in plane.node(broken).cordons} == {"health"}
    time.sleep(1.0)
    assert set(plane.machines()) == {broken, other}
    plane.navarch("approve", change["change"], "--wait")
    plane.healed(broken, count=2)

    plane.prints(other, xid(FALLEN_OFF))
    unwanted = waiting(plane, other)
    plane.navarch("cancel", unwanted["change"], "--reason", "under warranty", "--wait")
    plane.until(lambda: plane.node(other).blocked, "why it waits")
    time.sleep(1.0)
    kept = plane.node(other)
    assert (kept.phase, kept.replaced_by) == ("active", None)
    assert kept.blocked is not None
    assert kept.blocked.code == "change-cancelled"
