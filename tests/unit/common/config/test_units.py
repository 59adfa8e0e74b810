"""Durations and shares, read and written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_common.config.units import DURATION_MAX, Share, format_duration, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("7d", 604_800),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("250μs", 0.00025),
        ("1000ns", 0.000001),
        ("0", 0),
        ("0s", 0),
        (" 5m ", 300),
        ("1m1m", 120),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "without a unit"),
        ("5 minutes", "expected a duration such as"),
        ("-5m", "negative"),
        ("", "expected a duration"),
        ("m5", "expected a duration"),
        ("5m3", "expected a duration"),
        ("1w", "expected a duration"),
        ("nan", "expected a duration"),
        ("inf", "expected a duration"),
        ("1e3s", "expected a duration"),
        ("11y", "expected a duration"),
        ("3661d", "ten years"),
        ("999999999999999999d", "ten years"),
        ("5m\n5m", "expected a duration"),
        ("1s" * 100, "expected a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=DURATION_MAX))
def test_a_duration_that_was_written_is_read_as_itself(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("3", Share(3, 0)),
        ("0", Share(0, 0)),
        ("5%", Share(0, 0.05)),
        ("5 %", Share(0, 0.05)),
        ("2.5%", Share(0, 0.025)),
        ("max(1, 2 %)", Share(1, 0.02)),
        ("max(2%,1)", Share(1, 0.02)),
        ("max(4, 100 %)", Share(4, 1.0)),
    ],
)
def test_a_share_is_a_count_a_percentage_or_the_larger_of_both(text: str, share: Share) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    "text", ["", "%", "-1", "-5%", "1.5", "max(1)", "max(1, 2)", "max(1%, 2%)", "min(1, 2%)", "nan%", "max(1,2%),3"]
)
def test_what_is_no_share_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a count \(3\), a percentage"):
        parse_share(text)


@pytest.mark.parametrize("text", ["1001%", "9999999"])
def test_an_absurd_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most"):
        parse_share(text)


@pytest.mark.parametrize(
    ("share", "total", "expected"),
    [
        (Share(1, 0.02), 0, 1),
        (Share(1, 0.02), 3, 1),
        (Share(1, 0.02), 50, 1),
        (Share(1, 0.02), 51, 2),
        (Share(0, 0.07), 100, 7),
        (Share(2, 0.2), 11, 3),
        (Share(4, 1.0), 7, 7),
        (Share(0, 0), 1000, 0),
    ],
)
def test_a_share_of_a_whole_is_the_larger_of_count_and_rounded_up_part(share: Share, total: int, expected: int) -> None:
    assert share.of(total) == expected


@given(count=st.integers(0, 1_000_000), hundredths=st.integers(0, 100_000))
def test_a_share_that_was_written_is_read_as_itself(count: int, hundredths: int) -> None:
    share = Share(count, round(hundredths / 10_000, 8))
    assert parse_share(str(share)) == share


@given(percent=st.integers(0, 100), total=st.integers(0, 1_000_000))
def test_a_percentage_is_never_rounded_up_by_arithmetic_alone(percent: int, total: int) -> None:
    assert parse_share(f"{percent}%").of(total) == -(-percent * total // 100)


def test_a_text_made_to_keep_the_parser_busy_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="expected a count"):
        parse_share("max(" + " " * 1_000_000)
