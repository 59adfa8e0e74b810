"""Who works on what, as a function of who lives and who holds what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_common.division import divide

NAMES = st.sets(st.sampled_from([f"p{n}" for n in range(12)]), max_size=12)
COPIES = st.sets(st.sampled_from([f"c{n}" for n in range(5)]), min_size=1, max_size=5)
HOLDERS = st.dictionaries(
    st.sampled_from([f"p{n}" for n in range(12)]), st.sampled_from([f"c{n}" for n in range(7)]), max_size=12
)


@given(NAMES, COPIES, HOLDERS)
def test_every_pool_has_one_living_copy_and_shares_are_even(
    pools: set[str], copies: set[str], holders: dict[str, str]
) -> None:
    owners = divide(pools, copies, holders)
    assert set(owners) == pools
    assert set(owners.values()) <= copies
    counts = {copy: sum(owner == copy for owner in owners.values()) for copy in copies}
    assert max(counts.values()) - min(counts.values()) <= 1


@given(NAMES, COPIES, HOLDERS)
def test_an_answer_that_has_come_true_gives_itself_again(
    pools: set[str], copies: set[str], holders: dict[str, str]
) -> None:
    owners = divide(pools, copies, holders)
    assert divide(pools, copies, owners) == owners


@given(NAMES, COPIES, HOLDERS, st.data())
def test_a_copy_that_dies_moves_no_pools_but_its_own(
    pools: set[str], copies: set[str], holders: dict[str, str], data: st.DataObject
) -> None:
    before = divide(pools, copies, holders)
    dead = data.draw(st.sampled_from(sorted(copies)))
    after = divide(pools, copies - {dead}, before)
    if copies - {dead}:
        assert {pool for pool in pools if after[pool] != before[pool]} == {p for p in pools if before[p] == dead}


@given(NAMES, COPIES, HOLDERS)
def test_a_copy_that_joins_is_handed_its_share_and_nothing_else_moves(
    pools: set[str], copies: set[str], holders: dict[str, str]
) -> None:
    before = divide(pools, copies, holders)
    after = divide(pools, {*copies, "new"}, before)
    moved = {pool for pool in pools if after[pool] != before[pool]}
    assert moved == {pool for pool in pools if after[pool] == "new"}
    assert len(moved) <= -(-len(pools) // (len(copies) + 1))


@given(NAMES, COPIES, HOLDERS, st.randoms(use_true_random=False))
def test_copies_that_act_one_by_one_on_what_they_read_soon_agree(
    pools: set[str], copies: set[str], holders: dict[str, str], rng: object
) -> None:
    """Each in its turn releases what is not its own and takes what is free; whatever the order, three rounds suffice."""
    held = {pool: copy for pool, copy in holders.items() if pool in pools and copy in copies}
    for _ in range(3):
        order = sorted(copies)
        rng.shuffle(order)  # type: ignore[attr-defined]
        for copy in order:
            owners = divide(pools, copies, held)
            held = {pool: holder for pool, holder in held.items() if holder != copy or owners[pool] == copy}
            held |= {pool: copy for pool in pools if owners[pool] == copy and pool not in held}
    assert held == divide(pools, copies, held)
    assert set(held) == pools


def test_without_copies_nobody_has_anything() -> None:
    assert divide({"p1"}, set(), {"p1": "gone"}) == {}


@pytest.mark.parametrize(
    ("pools", "copies", "holders", "owners"),
    [
        pytest.param("ab", "x", {}, {"a": "x", "b": "x"}, id="alone it has everything"),
        pytest.param("ab", "xy", {"a": "x", "b": "x"}, {"a": "x", "b": "y"}, id="one too many is handed over"),
        pytest.param("a", "xy", {"a": "y"}, {"a": "y"}, id="the only pool stays where it is"),
        pytest.param("abc", "xy", {"c": "y", "b": "y"}, {"a": "x", "b": "y", "c": "y"}, id="the odd one stays"),
    ],
)
def test_for_example(pools: str, copies: str, holders: dict[str, str], owners: dict[str, str]) -> None:
    assert divide(set(pools), set(copies), holders) == owners
