"""Queue depths: added up over fresh sources, stale one by one, never taken for zero."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_autoscaler.demand import SOURCES_MAX, QueueBook, TooManySources
from navarch_autoscaler.strategies.base import Demand
from navarch_common.events.messages import QueueDepth

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def depth(count: int) -> QueueDepth:
    return QueueDepth(queue_depth=count)


def test_fresh_sources_are_added_up() -> None:
    book = QueueBook().note("slurm", depth(30), at(0)).note("ray", depth(12), at(1))
    assert book.demand(at(2)) == Demand(queue_depth=42, sources=2)


def test_a_new_word_replaces_the_old_one_of_its_source() -> None:
    assert QueueBook().note("", depth(30), at(0)).note("", depth(5), at(10)).demand(at(11)) == Demand(5, 1)


def test_an_older_word_changes_nothing() -> None:
    assert QueueBook().note("", depth(5), at(10)).note("", depth(30), at(0)).demand(at(11)) == Demand(5, 1)


def test_a_source_goes_stale_alone() -> None:
    book = QueueBook().note("slurm", depth(30), at(0)).note("ray", depth(12), at(60))
    assert book.demand(at(100)) == Demand(queue_depth=12, sources=1, stale=("slurm",))


def test_nobody_fresh_is_no_demand_and_not_zero() -> None:
    assert QueueBook().note("", depth(30), at(0)).demand(at(91)) is None


def test_a_slow_source_is_fresh_for_three_of_its_intervals() -> None:
    book = QueueBook().note("", depth(1), at(0)).note("", depth(2), at(600))
    assert book.demand(at(600 + 1800)) == Demand(2, 1)
    assert book.demand(at(600 + 1801)) is None


def test_a_burst_does_not_make_a_source_look_stale_at_once() -> None:
    book = QueueBook()
    for millisecond in range(20):
        book = book.note("", depth(millisecond), at(millisecond / 1000))
    assert book.demand(at(80)) == Demand(19, 1)


def test_a_source_that_was_switched_off_is_forgotten_after_hours() -> None:
    book = QueueBook().note("old", depth(30), at(0)).note("new", depth(1), at(7 * 3600))
    assert book.demand(at(7 * 3600)) == Demand(1, 1)


def test_more_sources_than_are_remembered_are_refused() -> None:
    book = QueueBook()
    for number in range(SOURCES_MAX):
        book = book.note(f"s{number}", depth(1), at(0))
    with pytest.raises(TooManySources, match="64 sources"):
        book.note("one-more", depth(1), at(1))
    assert book.note("s3", depth(9), at(1)).demand(at(1)) == Demand(SOURCES_MAX - 1 + 9, SOURCES_MAX)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000), st.floats(0, 10_000)), max_size=30))
def test_demand_is_never_more_than_the_last_words_together(words: list[tuple[str, int, float]]) -> None:
    book = QueueBook()
    last: dict[str, tuple[float, int]] = {}
    for source, count, second in words:
        book = book.note(source, depth(count), at(second))
        if source not in last or at(second) >= at(last[source][0]):
            last[source] = (second, count)
    demand = book.demand(at(10_000))
    assert demand is None or demand.queue_depth <= sum(count for _, count in last.values())
