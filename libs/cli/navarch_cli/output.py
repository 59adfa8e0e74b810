"""How things are printed: tables for people, one document for scripts, names for pipes.

JSON and YAML use the API's own field names; an empty list is `[]`. Colour only on a terminal.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
import yaml
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from navarch_api import types as t
from navarch_cli.session import Output

T = TypeVar("T")

_STYLES = {
    "active": "green",
    "healthy": "green",
    "done": "green",
    "provisioning": "cyan",
    "unknown": "dim",
    "suspect": "yellow",
    "degraded": "yellow",
    "cordoned": "yellow",
    "draining": "magenta",
    "unhealthy": "bold red",
    "failed": "bold red",
    "refused": "bold red",
    "terminated": "dim",
}


_GAP = 2
"""Between columns."""
_SENTENCE = 24
"""What a wrapped column needs to be readable."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its heading, what it shows of a row, and whether only `-o wide` has room for it."""

    heading: str
    value: Callable[[T], object]
    wide: bool = False
    right: bool = False
    flexible: bool = False
    """A sentence: it is wrapped where the terminal is narrow."""
    spare: int = 0
    """Where a terminal has no room for all columns, the one with the highest goes first. 0: it stays."""


def console() -> Console:
    """A terminal has its width; a pipe gets lines as long as they need to be."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 1000)


def show_list(
    items: Sequence[T], columns: Sequence[Column[T]], name: Callable[[T], str], output: Output, empty: str
) -> None:
    """Prints many things. `empty` is what a person is told when there is none."""
    if output in (Output.JSON, Output.YAML):
        show_data(items, output)
    elif output is Output.NAME:
        for item in items:
            print(name(item))
    elif not items:
        print(empty)
    else:
        console().print(table(items, columns, wide=output is Output.WIDE))


def show_data(value: object, output: Output) -> None:
    """Prints one document."""
    if output is Output.YAML:
        plain = msgspec.to_builtins(value, builtin_types=())
        print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=False), end="")
    else:
        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_line(value: object) -> None:
    """Prints one line of JSON Lines, at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def table(items: Sequence[T], columns: Sequence[Column[T]], *, wide: bool) -> Table:
    """Rows under headings. On a terminal too narrow for all of it the columns that matter least give way."""
    shown = [column for column in columns if wide or not column.wide]
    rows = [[cell(column.value(item)) for column in shown] for item in items]
    room = console().width if sys.stdout.isatty() else None
    kept = list(range(len(shown))) if room is None else fitting(shown, rows, room)
    cramped = room is not None and _needs(shown, rows, kept) > room
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index in kept:
        column = shown[index]
        drawn.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=not column.flexible and not cramped,
            overflow="fold",
            min_width=_need(column, index, rows) if column.flexible and not cramped else None,
            ratio=1 if column.flexible and room is not None else None,
        )
    for row in rows:
        drawn.add_row(*(row[index] for index in kept))
    return drawn


def fitting(columns: Sequence[Column[T]], rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Which columns to show so that no cell is cut: those without `spare`, and of the others what there is room for."""
    kept = list(range(len(columns)))
    while _needs(columns, rows, kept) > room:
        least = max(kept, key=lambda index: columns[index].spare, default=None)
        if least is None or not columns[least].spare:
            break
        kept.remove(least)
    return kept


def _needs(columns: Sequence[Column[T]], rows: Sequence[Sequence[Text]], kept: Sequence[int]) -> int:
    return sum(_need(columns[index], index, rows) for index in kept) + _GAP * max(len(kept) - 1, 0)


def _need(column: Column[T], index: int, rows: Sequence[Sequence[Text]]) -> int:
    widest = max([cell_len(column.heading), *(row[index].cell_len for row in rows)])
    return min(widest, _SENTENCE) if column.flexible else widest


def cell(value: object) -> Text:
    """One cell: never markup, so that a reason with brackets shows as it is; control characters are made visible."""
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, Text):
        return value
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))
    return Text(text, style=_STYLES.get(text, ""))


def pairs(rows: Sequence[tuple[str, object]]) -> Table:
    """A two-column sheet about one thing; rows without a value are left out."""
    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for label, value in rows:
        if value is not None and value != "":
            drawn.add_row(label, cell(value))
    return drawn


def ago(at: datetime | None, now: datetime | None = None) -> str | None:
    """`12s`, `3m`, `2h5m`, `6d`: how long ago; None stays None."""
    if at is None:
        return None
    return span(((now or datetime.now(UTC)) - at).total_seconds())


def span(seconds: float) -> str:
    """A duration as a person says it, in at most two units."""
    whole = int(abs(seconds))
    sign = "-" if seconds <= -1 else ""
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            count, rest = divmod(whole, size)
            rest //= below_size
            return f"{sign}{count}{unit}{rest}{below}" if rest and count < 10 else f"{sign}{count}{unit}"
    return f"{sign}{whole}s"


def counted(count: int, noun: str) -> str:
    """`1 event`, `3 events`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def held_text(guards: Sequence[t.Guard]) -> str:
    """Each hold among `guards`: what, by whom, until when, and why."""
    return "; ".join(
        f"{g.node or f'pool {g.pool}'} by {g.actor}{f', until {clock(g.until)}' if g.until else ''}: {g.reason}"
        for g in guards
        if g.kind == "hold"
    )


def clock(at: datetime) -> str:
    """A moment in the reader's own time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def as_dict(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
