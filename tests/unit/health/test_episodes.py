"""Episodes fold lines into faults, whatever their order and however often they come."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_common.model.health import EPISODES_MAX, Episode
from navarch_health.episodes import EPISODES_PER_CODE, SEEN_MAX, Line, episodes_within, fold, line_number, of
from support.health_world import T0, seconds


def line(at: float, number: int, *, entity: str = "gpu:a", code: str = "xid-31", boot_id: str = "b") -> Line:
    return Line(entity=entity, code=code, boot_id=boot_id, at=T0 + seconds(at), number=number)


def folded(*lines: Line) -> tuple[Episode, ...]:
    episodes: tuple[Episode, ...] = ()
    for one in lines:
        episodes = fold(episodes, one)
    return episodes


@pytest.mark.parametrize(
    ("times", "spans"),
    [
        pytest.param((0,), [(0, 0)], id="one"),
        pytest.param((0, 5), [(0, 5)], id="five seconds are one"),
        pytest.param((0, 5.1), [(0, 0), (5.1, 5.1)], id="more are two"),
        pytest.param((0, 8, 4), [(0, 8)], id="a late line closes the gap"),
        pytest.param((0, 4, 8, 12), [(0, 12)], id="a chain is one"),
        pytest.param((60, 0), [(0, 0), (60, 60)], id="overtaken"),
    ],
)
def test_lines_within_five_seconds_are_one_episode(times: tuple[float, ...], spans: list[tuple[float, float]]) -> None:
    episodes = folded(*(line(at, number) for number, at in enumerate(times)))
    assert [(e.first_at, e.last_at) for e in episodes] == [(T0 + seconds(a), T0 + seconds(b)) for a, b in spans]
    assert [e.count for e in episodes] == list(range(1, len(spans) + 1))


def test_the_same_line_again_changes_nothing_not_even_the_object() -> None:
    episodes = folded(line(0, 1), line(1, 2))
    assert fold(episodes, line(0, 1)) is episodes
    assert fold(episodes, line(1, 2)) is episodes


def test_a_number_that_an_agent_uses_anew_after_losing_its_spool_is_not_taken_for_a_repetition() -> None:
    episodes = folded(line(0, 1))
    assert len(fold(episodes, line(3600, 1))) == 2


def test_entities_codes_and_boots_are_apart() -> None:
    episodes = folded(line(0, 1), line(0, 2, entity="gpu:b"), line(0, 3, code="xid-79"), line(0, 4, boot_id="c"))
    assert len(episodes) == 4
    assert episodes_within(of(episodes, "gpu:a", "xid-31"), None) == 2, "over two boots"


def test_old_episodes_go_and_stay_counted() -> None:
    episodes = folded(*(line(60 * n, n) for n in range(EPISODES_PER_CODE + 3)))
    assert len(episodes) == EPISODES_PER_CODE
    assert episodes[-1].count == EPISODES_PER_CODE + 3
    assert fold(episodes, line(0, 0)) is episodes, "older than all that is kept"


def test_a_flood_is_bounded() -> None:
    episodes = folded(*(line(n, n, entity=f"gpu:{n}") for n in range(200)))
    assert len(episodes) == EPISODES_MAX
    burst = folded(*(line(0.001 * n, n) for n in range(100)))
    assert len(burst) == 1
    assert burst[0].lines == SEEN_MAX


@pytest.mark.parametrize(("within", "count"), [(None, 4), (timedelta(hours=1), 2), (timedelta(seconds=1), 1)])
def test_episodes_are_counted_back_from_the_newest(within: timedelta | None, count: int) -> None:
    episodes = folded(line(0, 1), line(60, 2), line(7200, 3), line(7300, 4))
    assert episodes_within(episodes, within) == count


LINES = st.lists(
    st.builds(
        line,
        st.integers(min_value=0, max_value=30).map(float),
        st.integers(min_value=0, max_value=10),
        entity=st.sampled_from(["gpu:a", "gpu:b"]),
        code=st.sampled_from(["xid-31", "xid-79"]),
    ),
    max_size=12,
    unique_by=lambda one: (one.number, one.boot_id),
)


@given(LINES, st.randoms(use_true_random=False), st.lists(st.integers(min_value=0, max_value=11)))
def test_folding_is_idempotent_and_insensitive_to_order(
    lines: list[Line], rng: random.Random, repeats: list[int]
) -> None:
    again = [*lines, *(lines[n] for n in repeats if n < len(lines))]
    rng.shuffle(again)
    assert folded(*again) == folded(*lines)


def test_line_numbers_of_reports_do_not_meet() -> None:
    assert line_number(1, 63) < line_number(2, 0)
