"""Silence that many share is told once, however long it lasts and however many hear it."""

from __future__ import annotations

from datetime import timedelta

from navarch_common.model.health import AlarmRecord
from navarch_health.alarms import QUIET, Causes
from support.health_world import T0, seconds

TIMEOUT = timedelta(seconds=15)
DARK = {"zone-silence/a": "zone a is dark"}


def standing(since: float = 0.0, *, active: bool = True) -> dict[str, AlarmRecord]:
    return {"zone-silence/a": AlarmRecord(name="zone-silence/a", active=active, reason="x", since=T0 + seconds(since))}


def test_it_is_raised_once_its_cause_has_lasted_for_a_while() -> None:
    causes = Causes()
    causes.note(DARK, T0)
    assert causes.due(DARK, {}, T0 + seconds(4), TIMEOUT) == []
    [due] = causes.due(DARK, {}, T0 + seconds(5), TIMEOUT)
    assert (due.name, due.tell, due.record.active) == ("zone-silence/a", True, True)


def test_what_comes_and_goes_within_that_while_is_not_told() -> None:
    causes = Causes()
    causes.note(DARK, T0)
    causes.note({}, T0 + seconds(3))
    causes.note(DARK, T0 + seconds(6))
    assert causes.due(DARK, {}, T0 + seconds(8), TIMEOUT) == []


def test_what_stands_already_is_not_raised_again_by_another_copy_or_later() -> None:
    causes = Causes()
    causes.note(DARK, T0)
    assert causes.due(DARK, standing(), T0 + seconds(3600), TIMEOUT) == []


def test_it_is_taken_back_in_silence_when_its_cause_has_been_away_for_long() -> None:
    causes = Causes()
    causes.note(DARK, T0 + seconds(60))
    assert causes.due({}, standing(), T0 + seconds(60) + QUIET - seconds(1), TIMEOUT) == []
    [due] = causes.due({}, standing(), T0 + seconds(60) + QUIET, TIMEOUT)
    assert (due.tell, due.record.active) == (False, False)


def test_what_was_taken_back_is_raised_again_when_it_comes_back() -> None:
    causes = Causes()
    causes.note(DARK, T0 + seconds(500))
    [due] = causes.due(DARK, standing(400, active=False), T0 + seconds(505), TIMEOUT)
    assert due.tell
