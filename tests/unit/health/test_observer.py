"""The observer's own ears: when silence means nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from navarch_common.bus.base import BusStatus
from navarch_health.observer import Observer
from support.health_world import T0, seconds

FINE = BusStatus(connected=True, disconnects=0, dropped=0, errors=0)
TIMEOUT = timedelta(seconds=15)


def listening(until: float) -> Observer:
    observer = Observer(T0, 0.0, TIMEOUT, tick_s=0.5)
    hear(observer, 0.0, until)
    return observer


def hear(observer: Observer, start: float, until: float, bus: BusStatus = FINE) -> None:
    at = start
    while at < until:
        at += 0.5
        observer.note(T0 + seconds(at), at, bus)


def test_it_is_deaf_for_a_whole_timeout_after_its_start() -> None:
    observer = listening(14.5)
    assert "just started" in observer.deaf(T0 + seconds(14.5))
    hear(observer, 14.5, 15.0)
    assert observer.deaf(T0 + seconds(15)) == ""


@pytest.mark.parametrize(
    ("bus", "why"),
    [
        pytest.param(BusStatus(True, 1, 0, 0), "not connected", id="a disconnect between two looks"),
        pytest.param(BusStatus(False, 1, 0, 0), "not connected", id="away now"),
        pytest.param(BusStatus(True, 0, 7, 0), "7 messages were dropped", id="dropped"),
        pytest.param(BusStatus(True, 0, 0, 1), "1 errors", id="errors"),
    ],
)
def test_trouble_of_the_bus_counts_anew(bus: BusStatus, why: str) -> None:
    observer = listening(20)
    observer.note(T0 + seconds(20.5), 20.5, bus)
    assert why in observer.deaf(T0 + seconds(21))
    assert observer.suspended_until == T0 + seconds(35.5)


def test_an_outage_counts_from_its_end() -> None:
    observer = listening(20)
    hear(observer, 20, 60, BusStatus(False, 1, 0, 0))
    hear(observer, 60, 74, BusStatus(True, 1, 0, 0))
    assert observer.deaf(T0 + seconds(74))
    hear(observer, 74, 76, BusStatus(True, 1, 0, 0))
    assert not observer.deaf(T0 + seconds(76))


def test_a_process_that_stood_still_has_heard_nothing() -> None:
    observer = listening(20)
    observer.note(T0 + seconds(23), 23.0, FINE)
    assert not observer.deaf(T0 + seconds(23)), "a short pause costs no heartbeat"
    observer.note(T0 + seconds(83), 83.0, FINE)
    assert "stood still for 59" in observer.deaf(T0 + seconds(83))


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_counts_anew(jump: float) -> None:
    observer = listening(20)
    observer.note(T0 + seconds(20.5 + jump), 20.5, FINE)
    assert "clock jumped" in observer.deaf(T0 + seconds(20.5 + jump))
    observer.note(T0 + seconds(21 + jump), 21.0, FINE)
    assert observer.suspended_until == T0 + seconds(35.5 + jump)
