"""Long times in which nothing is the matter but that little is heard: nobody is replaced for that."""

import pytest

from navarch_sim.virtual.endurance import Endured, endure, lose, quiet, silence_zone


def unharmed(after: Endured) -> bool:
    """No machine more than at first, none ended, nobody called failed."""
    return (after.made, after.ended, after.events.get("node.failed", 0), after.violation) == (after.nodes, 0, 0, "")


@pytest.mark.long
def test_an_hour_in_which_every_fifth_heartbeat_is_lost_replaces_nobody() -> None:
    after = endure(1, quiet(20), 3600.0, lose(0.2))
    assert unharmed(after), after
    assert after.events["node.suspect"] > 10, "silence must have been noticed, or the test proves nothing"
    assert after.events["node.suspect"] == after.events["node.recovered"]


def test_a_zone_that_falls_silent_at_once_replaces_nobody_and_is_one_alarm() -> None:
    after = endure(1, quiet(30), 600.0, silence_zone("zone-a", 300.0))
    assert unharmed(after), after
    assert after.events["cluster.alarm"] == 1


@pytest.mark.parametrize("loss", [0.01])
def test_the_same_hour_of_a_hundred_nodes_has_the_same_history(loss: float) -> None:
    first, second = (endure(2, quiet(100), 120.0, lose(loss)) for _ in range(2))
    assert first.digest == second.digest
    assert first.heartbeats > 1000
