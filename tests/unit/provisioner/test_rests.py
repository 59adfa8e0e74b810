"""How long a node rests after a cloud call that settled nothing."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.pool import PoolWorker
from navarch_provisioner.reader import Memory
from navarch_provisioner.settings import ProvisionerSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rests_after(*outcomes: Outcome) -> float:
    """Seconds that node `a` rests after these outcomes, one after the other; 0 for none."""
    settings = ProvisionerSettings(pools={}, providers={})
    worker: Any = SimpleNamespace(_tries={}, memory=Memory(), _settings=lambda: (0, settings))
    for outcome in outcomes:
        PoolWorker._rest(worker, outcome, None, NOW)
    return float((worker.memory.resting.get("a", NOW) - NOW) / timedelta(seconds=1))


def unknown(call: Any) -> Outcome:
    return Outcome(call, "a", unknown="no answer")


def test_a_call_that_settles_nothing_rests_twice_as_long_each_time() -> None:
    assert [rests_after(*[unknown("terminate")] * count) for count in (1, 2, 3)] == [1, 2, 4]


def test_another_call_about_the_node_begins_anew() -> None:
    assert rests_after(*[unknown("power-on")] * 4, unknown("terminate")) == 1


def test_a_boot_that_was_accepted_leaves_no_rest() -> None:
    assert rests_after(unknown("power-on"), unknown("power-on"), Outcome("power-on", "a")) == 0
