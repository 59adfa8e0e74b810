"""Figures and how they are printed."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct, to_builtins
from rich.console import Console
from rich.table import Table


class Figure(Struct, frozen=True, kw_only=True):
    """One number, with what it is compared to."""

    bench: str
    what: str
    value: float
    unit: str
    ceiling: float | None = None
    """What a bare loop over the same servers does; None where the figure is compared to a goal alone."""
    goal: str = ""
    better: Literal["less", "more"] = "less"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How near to the ceiling: 1 is as good as it."""
        if not self.ceiling or not self.value:
            return None
        return self.ceiling / self.value if self.better == "less" else self.value / self.ceiling


def percentile(values: Sequence[float], percent: float) -> float:
    """By the nearest rank. NaN for no values at all."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    rank = min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))
    return ordered[rank]


def latency(
    bench: str, what: str, values: Sequence[float], ceiling: Sequence[float], goals: tuple[str, str]
) -> list[Figure]:
    """p50 and p99 of latencies in seconds, in milliseconds."""
    return [
        Figure(
            bench=bench,
            what=f"{what} p{percent}",
            value=percentile(values, percent) * 1000,
            unit="ms",
            ceiling=percentile(ceiling, percent) * 1000 if ceiling else None,
            goal=goal,
            note=f"n={len(values)}, mean {statistics.fmean(values) * 1000:.1f}" if values else "n=0",
        )
        for percent, goal in ((50, goals[0]), (99, goals[1]))
    ]


def show(figures: Sequence[Figure]) -> None:
    table = Table(title="Navarch benchmarks", title_justify="left")
    for heading in ("bench", "figure", "value", "ceiling", "ratio", "goal", "note"):
        table.add_column(heading, justify="right" if heading in ("value", "ceiling", "ratio") else "left")
    for figure in figures:
        ratio = figure.ratio
        table.add_row(
            figure.bench,
            figure.what,
            f"{figure.value:,.2f} {figure.unit}",
            "-" if figure.ceiling is None else f"{figure.ceiling:,.2f} {figure.unit}",
            "-" if ratio is None else f"{ratio:.2f}",
            figure.goal,
            figure.note,
        )
    Console(width=160).print(table)


def save(figures: Sequence[Figure], path: Path) -> None:
    path.write_text(json.dumps([{**to_builtins(figure), "ratio": figure.ratio} for figure in figures], indent=2) + "\n")
