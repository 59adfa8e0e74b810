"""Which guard is in force, whatever the places where it is kept say of it."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from navarch_common.guards import decode, encode, forbids, hold_on, newest, next_number, remembered, standing
from navarch_common.model.pool import Guard
from support.guards import T0, freeze, hold


@pytest.mark.parametrize(
    ("sources", "in_force"),
    [
        pytest.param([[freeze(1)], []], True, id="one place that knows of it is enough"),
        pytest.param([[freeze(1)], [freeze(2, active=False)]], False, id="the higher number wins, and it lifts"),
        pytest.param(
            [[freeze(3)], [freeze(2, active=False)], [freeze(1)]], True, id="the higher number wins, and it freezes"
        ),
        pytest.param([[freeze(2, active=False)], [freeze(2)]], True, id="of one number, what forbids more"),
        pytest.param([[], [], []], False, id="nothing anywhere forbids nothing"),
    ],
)
def test_the_highest_number_wins_in_whatever_order_the_places_are_read(
    sources: list[list[Guard]], in_force: bool
) -> None:
    for order in permutations(sources):
        assert bool(standing(newest(*order), T0)) is in_force
        assert newest(*order) == newest(*sources)


def test_guards_of_different_names_do_not_lift_one_another() -> None:
    merged = newest([freeze(1)], [freeze(2, active=False, pool="training")], [hold(3, node="n1")])
    assert [guard.name for guard in merged] == ["freeze", "freeze/training", "hold/node/n1"]
    assert forbids(merged, "launch", "training", T0) == freeze(1)
    assert next_number(merged) == 4


@pytest.mark.parametrize(
    ("guard", "pool", "node", "held"),
    [
        pytest.param(hold(node="n1"), "training", "n1", True, id="a node"),
        pytest.param(hold(node="n1"), "training", "n2", False, id="its neighbour is not held"),
        pytest.param(hold(node="n1"), "training", None, False, id="a held node does not hold its pool"),
        pytest.param(hold(), "training", "n1", True, id="a held pool holds its nodes"),
        pytest.param(hold(), "training", None, True, id="a held pool"),
        pytest.param(hold(), "burst", "n1", False, id="another pool"),
        pytest.param(hold(until=T0), "training", "n1", False, id="one that has run out"),
        pytest.param(hold(active=False), "training", "n1", False, id="one that was released"),
        pytest.param(freeze(pool="training"), "training", "n1", False, id="a freeze is no hold"),
    ],
)
def test_what_a_hold_holds(guard: Guard, pool: str, node: str | None, held: bool) -> None:
    assert (hold_on([guard], pool, node, T0) is not None) is held


@pytest.mark.parametrize("act", ["launch", "terminate"])
def test_a_hold_forbids_no_call_by_itself(act: Any) -> None:
    assert forbids([hold(), hold(node="n1")], act, "training", T0) is None


def test_a_hold_is_remembered_until_nobody_can_take_it_for_being_in_force() -> None:
    over, lifted, forever = hold(1), hold(2, active=False, node="n1", until=None), freeze(3, active=False)
    assert remembered([over, lifted, forever], T0 + timedelta(days=29)) == (over, lifted, forever)
    assert remembered([over, lifted, forever], T0 + timedelta(days=31)) == (forever,)


def test_what_is_written_is_read_again_and_rubbish_is_not() -> None:
    both = (freeze(1), hold(2, node="n1"))
    assert decode(encode(both)) == both
    for rubbish in (b"", b"\xff", b"[]", b'{"guards": [{"name": 3}]}', b"[" * 100_000):
        with pytest.raises(ValueError, match="no set of guards"):
            decode(rubbish)
