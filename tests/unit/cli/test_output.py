"""What people and scripts read."""

from datetime import UTC, datetime, timedelta

import pytest

from navarch_cli.output import Column, ago, cell, fitting, show_list, span
from navarch_cli.session import Output

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m1s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (86400 * 6 + 3600, "6d1h"),
        (86400 * 40, "40d"),
        (-5, "-5s"),
        (-0.4, "0s"),
    ],
)
def test_a_duration_is_said_in_at_most_two_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_what_never_happened_has_no_age() -> None:
    assert ago(None) is None
    assert ago(NOW - timedelta(minutes=3), NOW) == "3m"


def test_a_cell_shows_markup_and_control_characters_as_they_are() -> None:
    assert cell("[red]x[/red]\x1b[31m\n").plain == "[red]x[/red]\\x1b[31m\\n"
    assert cell(None).plain == "-"


COLUMNS = (Column[str]("WORD", lambda word: word), Column[str]("LENGTH", len, wide=True, right=True))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output.JSON, '[\n  "one",\n  "two"\n]\n'),
        (Output.YAML, "- one\n- two\n"),
        (Output.NAME, "one\ntwo\n"),
    ],
)
def test_scripts_get_one_document(output: Output, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_list(["one", "two"], COLUMNS, str, output, "none")
    assert capsys.readouterr().out == expected


def test_an_empty_list_is_an_empty_json_list_and_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show_list([], COLUMNS, str, Output.JSON, "none")
    show_list([], COLUMNS, str, Output.TABLE, "no words match")
    assert capsys.readouterr().out == "[]\nno words match\n"


def test_wide_columns_appear_only_in_wide_output(capsys: pytest.CaptureFixture[str]) -> None:
    show_list(["one"], COLUMNS, str, Output.TABLE, "none")
    assert "LENGTH" not in capsys.readouterr().out
    show_list(["one"], COLUMNS, str, Output.WIDE, "none")
    assert "LENGTH" in capsys.readouterr().out


WIDE = (
    Column[str]("NAME", lambda word: word),
    Column[str]("TWICE", lambda word: word * 2, spare=2),
    Column[str]("REASON", lambda word: f"{word} because of many things, all of them true", flexible=True, spare=1),
)


@pytest.mark.parametrize(
    ("room", "headings"),
    [
        (80, ["NAME", "TWICE", "REASON"]),
        (46, ["NAME", "TWICE", "REASON"]),
        (45, ["NAME", "REASON"]),
        (32, ["NAME", "REASON"]),
        (31, ["NAME"]),
        (1, ["NAME"]),
    ],
)
def test_in_a_narrow_terminal_whole_columns_give_way_and_no_name_is_cut(room: int, headings: list[str]) -> None:
    rows = [[cell(column.value("node-1")) for column in WIDE]]
    assert [WIDE[index].heading for index in fitting(WIDE, rows, room)] == headings
