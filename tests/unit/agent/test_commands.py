"""Commands: done once, by whom they are meant for, in time; everything else is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from navarch_agent.commands import Decision, Ignore, Periods, Refuse, Repeat, Run, configured, decide
from navarch_agent.identity import Identity
from navarch_agent.spool import DoneCommand
from navarch_common.events.messages import Command

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ME = Identity(node="training-a", pool="training", generation=3, boot_id="b")
DONE = DoneCommand(id="c", outcome="done")


def command(node: str = "training-a", generation: int = 3, expires_in_s: float = 30) -> Command:
    return Command(
        id="c", node=node, generation=generation, kind="stop", expires_at=NOW + timedelta(seconds=expires_in_s)
    )


@pytest.mark.parametrize(
    ("given", "done", "kind"),
    [
        (command(), None, Run),
        (command(), DONE, Repeat),
        (command(expires_in_s=-1), DONE, Repeat),
        (command(generation=2), None, Refuse),
        (command(generation=4), None, Refuse),
        (command(expires_in_s=0), None, Refuse),
        (command(node="training-b"), None, Ignore),
        (command(node="training-b"), DONE, Ignore),
    ],
)
def test_a_command_is_decided(given: Command, done: DoneCommand | None, kind: type[Decision]) -> None:
    assert isinstance(decide(given, ME, done, NOW), kind)


def test_a_refusal_says_why() -> None:
    expired = decide(command(expires_in_s=-5), ME, None, NOW)
    assert isinstance(expired, Refuse)
    assert (expired.outcome, expired.text) == (
        "expired",
        "it expired at 2026-02-28T23:59:55+00:00, it is 2026-03-01T00:00:00+00:00 here",
    )
    old = decide(command(generation=2), ME, None, NOW)
    assert old == Refuse("refused", "it is for generation 2, this is generation 3")


def test_configure_changes_what_it_names_alone() -> None:
    assert configured(Periods(), {"heartbeat_interval_s": "2.5"}) == Periods(heartbeat_s=2.5)
    assert configured(Periods(heartbeat_s=1), {"health_check_interval_s": "30"}) == Periods(
        heartbeat_s=1, health_check_s=30
    )
    assert configured(Periods(), {}) == Periods()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"heartbeat_interval_s": "fast"}, "heartbeat_interval_s: expected seconds from 0.1 to 3600, found 'fast'"),
        ({"heartbeat_interval_s": "nan"}, "expected seconds"),
        ({"heartbeat_interval_s": "inf"}, "expected seconds"),
        ({"heartbeat_interval_s": "0"}, "expected seconds"),
        ({"heartbeat_interval_s": "-5"}, "expected seconds"),
        ({"interval": "5"}, "interval: no such setting; known are heartbeat_interval_s"),
    ],
)
def test_configure_refuses_what_makes_no_sense(args: dict[str, str], words: str) -> None:
    answer = configured(Periods(), args)
    assert isinstance(answer, str)
    assert words in answer
