"""How long a node rests after a cloud call that settled nothing."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from navarch_common.model.node import Phase
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.plan import plan
from navarch_provisioner.pool import PoolWorker
from navarch_provisioner.reader import Memory
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import rest_of
from support.provisioner_pools import at, node, pool

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rests_after(*outcomes: Outcome) -> float:
    """Seconds that the last call rests after these outcomes, one after the other; 0 for none."""
    settings = ProvisionerSettings(pools={}, providers={})
    worker: Any = SimpleNamespace(_tries={}, memory=Memory(), _settings=lambda: (0, settings))
    for outcome in outcomes:
        PoolWorker._rest(worker, outcome, None, NOW)
    name = rest_of("a", outcomes[-1].call)
    return float((worker.memory.resting.get(name, NOW) - NOW) / timedelta(seconds=1))


def unknown(call: Any) -> Outcome:
    return Outcome(call, "a", unknown="no answer")


def test_a_call_that_settles_nothing_rests_twice_as_long_each_time() -> None:
    assert [rests_after(*[unknown("terminate")] * count) for count in (1, 2, 3)] == [1, 2, 4]


def test_another_call_about_the_node_begins_anew() -> None:
    assert rests_after(*[unknown("power-on")] * 4, unknown("terminate")) == 1


def test_a_boot_that_was_accepted_leaves_no_rest() -> None:
    assert rests_after(unknown("power-on"), unknown("power-on"), Outcome("power-on", "a")) == 0


def test_a_machine_that_was_only_asked_about_is_ended_at_once_where_that_is_decided() -> None:
    going = node("a", Phase.TERMINATING)
    asked = pool(going, resting={rest_of("a", "ask"): at(60)})
    assert [step.call for step in plan(asked, at(1)).steps if step.call] == ["terminate"]
    tried = pool(going, resting={rest_of("a", "terminate"): at(60)})
    assert [step.call for step in plan(tried, at(1)).steps if step.call] == []
