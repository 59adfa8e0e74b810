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
from rich.console import Console
from rich.table import Table
from rich.text import Text

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


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its heading, what it shows of a row, and whether only `-o wide` has room for it."""

    heading: str
    value: Callable[[T], object]
    wide: bool = False
    right: bool = False
    flexible: bool = False
    """The one that gives way where the terminal is narrow."""


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
    shown = [column for column in columns if wide or not column.wide]
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in shown:
        drawn.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=not column.flexible,
            overflow="fold" if column.flexible else "ellipsis",
            ratio=1 if column.flexible and sys.stdout.isatty() else None,
        )
    for item in items:
        drawn.add_row(*(cell(column.value(item)) for column in shown))
    return drawn


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


def clock(at: datetime) -> str:
    """A moment in the reader's own time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def as_dict(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
