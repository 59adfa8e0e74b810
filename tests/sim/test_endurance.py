"""Long times in which nothing is the matter but that little is heard: nobody is replaced for that."""

import json

import pytest
from msgspec import structs
from typer.testing import CliRunner

from navarch_sim.virtual import commands
from navarch_sim.virtual.endurance import endure, lose, quiet, silence_zone


@pytest.mark.long
def test_an_hour_in_which_every_fifth_heartbeat_is_lost_replaces_nobody() -> None:
    after = endure(1, quiet(20), 3660.0, lose(0.2, 3600.0))
    assert after.unharmed, after
    assert after.events["node.suspect"] > 10, "silence must have been noticed, or the test proves nothing"
    assert after.events["node.suspect"] == after.events["node.recovered"]


def test_a_zone_that_falls_silent_at_once_replaces_nobody_and_is_one_alarm() -> None:
    after = endure(1, quiet(30), 600.0, silence_zone("zone-a", 300.0))
    assert after.unharmed, after
    assert after.events["cluster.alarm"] == 1


@pytest.mark.parametrize("loss", [0.01])
def test_the_same_hour_of_a_hundred_nodes_has_the_same_history(loss: float) -> None:
    first, second = (endure(2, quiet(100), 120.0, lose(loss)) for _ in range(2))
    assert first.digest == second.digest
    assert first.heartbeats > 1000


def soak(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands.sim, ["soak", "--nodes", "12", "--hours", "0.1", *arguments])
    return done.exit_code, done.stdout


def test_the_command_tells_what_came_of_it_and_has_the_same_trace_again() -> None:
    status, said = soak("--loss", "20", "--seed", "3", "-o", "json")
    told = json.loads(said)
    assert status == 0, said
    assert (told["nodes"], told["made"], told["ended"], told["violation"]) == (12, 12, 0, "")
    assert told["lasted_s"] == 360.0
    assert 250 < told["heartbeats"] < 430, "twelve nodes speak every ten seconds, and a fifth is lost"
    status, said = soak("--loss", "20", "--seed", "3")
    assert status == 0
    assert "12 nodes, 0.10 simulated hours" in said
    assert f"trace {told['digest']}" in said


def test_a_machine_that_is_replaced_though_nothing_is_the_matter_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = endure(1, quiet(3), 60.0)
    monkeypatch.setattr(commands, "endure", lambda *_: structs.replace(came, made=4, ended=1))
    status, said = soak()
    assert status == 1
    assert "4 machines made, 1 ended" in said
