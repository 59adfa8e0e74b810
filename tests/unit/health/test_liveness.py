"""Silence is weak evidence: what it may lead to, and what holds it back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from navarch_health.liveness import Decision, Life, Patience, rule_on_silence
from support.health_world import STATUS, T0, seconds

PATIENCE = Patience(heartbeat_timeout=timedelta(seconds=15), silence_deadline=timedelta(minutes=5))


def well(name: str, pool: str = "a", **fields: Any) -> Life:
    return Life(**{"node": name, "pool": pool, "status": STATUS.HEALTHY, "last_heard": T0, "silent": False, **fields})


def quiet(name: str, pool: str = "a", **fields: Any) -> Life:
    return well(name, pool, **{"silent": True, **fields})


def suspect(name: str, pool: str = "a", **fields: Any) -> Life:
    return quiet(name, pool, **{"status": STATUS.SUSPECT, "suspect_since": T0, **fields})


def rule(*lives: Life, at: float = 20.0, fleet: int = 0, deaf: str = "") -> tuple[Decision, ...]:
    return rule_on_silence(lives, T0 + seconds(at), PATIENCE, fleet=fleet or len(lives), deaf=deaf).decisions


def verdicts(*lives: Life, **fields: Any) -> dict[str, str]:
    return {decision.node: decision.verdict for decision in rule(*lives, **fields)}


OTHERS = tuple(well(f"w{n}") for n in range(3))
LATE = 400.0


@pytest.mark.parametrize(
    ("life", "at", "expected"),
    [
        pytest.param(well("n"), 20, None, id="heard"),
        pytest.param(quiet("n"), 20, "suspect", id="overdue"),
        pytest.param(suspect("n"), 100, None, id="suspect waits for the deadline"),
        pytest.param(suspect("n"), 299, None, id="one second before it"),
        pytest.param(suspect("n"), 300, "failed", id="at the deadline"),
        pytest.param(suspect("n", gone_at=T0 + seconds(5)), 20, "gone", id="the provider's word is at once"),
        pytest.param(quiet("n", gone_at=T0 + seconds(5)), 20, "suspect", id="after suspicion"),
        pytest.param(suspect("n", gone_at=T0 - seconds(5)), 20, None, id="said before it fell silent"),
        pytest.param(suspect("n", answered_at=T0 + seconds(290)), 300, "held", id="it answers probes"),
        pytest.param(suspect("n", answered_at=T0 + seconds(100)), 300, "failed", id="it answered long ago"),
        pytest.param(quiet("n", status=STATUS.UNHEALTHY), 900, None, id="failed already"),
        pytest.param(quiet("n", status=STATUS.UNKNOWN), 20, "suspect", id="never healthy"),
    ],
)
def test_one_silent_node_among_others(life: Life, at: float, expected: str | None) -> None:
    assert verdicts(life, *OTHERS, at=at).get("n") == expected


@pytest.mark.parametrize(
    ("life", "heard_since", "at", "expected"),
    [
        pytest.param(suspect("n"), 100, 399, None, id="we did not listen at first"),
        pytest.param(suspect("n"), 100, 400, "failed", id="long enough since we do"),
        pytest.param(suspect("n", suspected_at=T0 + seconds(1000)), 0, 1100, None, id="only just suspected"),
        pytest.param(suspect("n", suspected_at=T0 + seconds(1000)), 0, 1285, "failed", id="a deadline after that"),
    ],
)
def test_silence_that_may_have_been_ours_does_not_count(
    life: Life, heard_since: float, at: float, expected: str | None
) -> None:
    lives = (life, *OTHERS)
    ruling = rule_on_silence(lives, T0 + seconds(at), PATIENCE, fleet=len(lives), heard_since=T0 + seconds(heard_since))
    assert {d.node: d.verdict for d in ruling.decisions}.get("n") == expected


def test_a_deaf_observer_calls_nobody_suspect_or_failed_but_believes_the_provider() -> None:
    lives = (
        quiet("q"),
        suspect("s"),
        suspect("g", gone_at=T0 + seconds(1)),
        quiet("h", gone_at=T0 + seconds(1)),
        *OTHERS,
    )
    decisions = rule(*lives, at=LATE, fleet=1000, deaf="the bus was away")
    assert {d.node: d.verdict for d in decisions} == {"q": "held", "s": "held", "g": "gone", "h": "gone"}
    assert all("the bus was away" in d.reason for d in decisions if d.verdict == "held")


@pytest.mark.parametrize(
    ("silent", "fleet", "mass"),
    [(3, 3, False), (4, 4, True), (4, 79, True), (4, 80, False), (50, 1000, False), (51, 1000, True)],
)
def test_what_many_share_at_once_is_not_the_machines_fault(silent: int, fleet: int, mass: bool) -> None:
    lives = tuple(quiet(f"n{n}", pool=f"p{n}") for n in range(silent))
    ruling = rule_on_silence(lives, T0 + seconds(20), PATIENCE, fleet=fleet)
    assert bool(ruling.mass) is mass
    assert {d.verdict for d in ruling.decisions} == ({"held"} if mass else {"suspect"})


def test_never_more_than_half_of_a_pool_by_silence_alone() -> None:
    lives = (*(suspect(f"s{n}") for n in range(3)), well("w0"), well("w1"))
    assert sorted(verdicts(*lives, at=LATE).values()) == ["failed", "failed", "held"]
    earlier = (suspect("s0"), quiet("f0", status=STATUS.UNHEALTHY, failed_by_silence=True), well("w0"))
    assert verdicts(*earlier, at=LATE) == {"s0": "held"}


def test_a_machine_that_still_boots_makes_no_half_of_a_pool_larger() -> None:
    failed = quiet("f0", status=STATUS.UNHEALTHY, failed_by_silence=True)
    assert verdicts(suspect("s0"), failed, well("w0"), well("n0", status=STATUS.UNKNOWN), at=LATE) == {"s0": "held"}
    assert verdicts(suspect("s0"), failed, well("w0"), well("n0"), at=LATE) == {"s0": "failed"}


@pytest.mark.parametrize(
    "rest",
    [(), (quiet("x"),), (well("x", status=STATUS.UNHEALTHY),), (well("x", status=STATUS.UNKNOWN),)],
    ids=["alone", "with a silent one", "with a failed one", "with an unknown one"],
)
def test_never_the_last_of_a_pool_by_silence_alone(rest: tuple[Life, ...]) -> None:
    assert verdicts(suspect("s"), *rest, at=LATE)["s"] == "held"


def test_pools_do_not_answer_for_one_another() -> None:
    lives = (suspect("s"), well("w", pool="b"))
    assert verdicts(*lives, at=LATE) == {"s": "held"}


def test_longest_silent_goes_first() -> None:
    lives = (suspect("b", last_heard=T0 - seconds(9)), suspect("a"), well("w"))
    assert verdicts(*lives, at=LATE) == {"b": "failed", "a": "held"}


# --- a zone that goes dark ---

ZONE = "aws/us-east-1/us-east-1a"


def in_zone(count: int, made: Any, zone: str = ZONE, **fields: Any) -> tuple[Life, ...]:
    return tuple(made(f"{zone[-1]}{n:03d}", zone=zone, **fields) for n in range(count))


@pytest.mark.parametrize(
    ("silent", "of", "dark"),
    [
        pytest.param(20, 20, True, id="all of it"),
        pytest.param(11, 20, True, id="more than half"),
        pytest.param(10, 20, False, id="half"),
        pytest.param(4, 4, True, id="a small zone"),
        pytest.param(3, 3, False, id="as few as fail by themselves"),
    ],
)
def test_a_zone_that_is_silent_as_a_whole_is_no_machines_fault(silent: int, of: int, dark: bool) -> None:
    lives = in_zone(silent, suspect)
    ruling = rule_on_silence(
        (*lives, *in_zone(500, well, "aws/us-east-1/us-east-1b")), T0 + seconds(LATE), PATIENCE, fleet=1000,
        zones={ZONE: of},
    )  # fmt: skip
    assert bool(ruling.dark) is dark
    assert (ruling.mass, ruling.rest) == ("", ""), "it is far from a twentieth of the fleet"
    assert {decision.verdict for decision in ruling.decisions} == ({"held"} if dark else {"failed"})


def test_a_dark_zone_holds_back_no_verdict_on_others_and_no_word_of_the_provider() -> None:
    lives = (
        *in_zone(10, suspect), suspect("gone", zone=ZONE, gone_at=T0 + seconds(9)), suspect("x"),
        *in_zone(500, well, "aws/us-east-1/us-east-1b"),
    )  # fmt: skip
    ruling = rule_on_silence(lives, T0 + seconds(LATE), PATIENCE, fleet=1000, zones={ZONE: 11})
    said = {decision.node: decision.verdict for decision in ruling.decisions}
    assert (said["gone"], said["x"], said["a000"]) == ("gone", "failed", "held")


def test_silence_until_its_zone_came_back_proves_nothing_of_a_node() -> None:
    lives = (suspect("n", zone=ZONE, dark_at=T0 + seconds(LATE - 10)), *OTHERS)
    assert verdicts(*lives, at=LATE) == {}
    assert verdicts(*lives, at=LATE + 300) == {"n": "failed"}


def test_what_one_zone_explains_is_not_told_as_the_fleets_trouble_too() -> None:
    lives = (*in_zone(60, quiet), *in_zone(40, well, "aws/us-east-1/us-east-1b"))
    ruling = rule_on_silence(lives, T0 + seconds(20), PATIENCE, fleet=100, zones={ZONE: 60})
    assert ruling.mass
    assert list(ruling.dark) == [ZONE]
    assert ruling.rest == ""
