"""Durations and shares: the two kinds of value that people write with a unit.

Pure. A duration is `90s`, `5m`, `1h30m` or `7d`; a share is `3`, `5%` or `max(1, 2 %)`.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

_MICROSECONDS = {
    "ns": 0.001,
    "us": 1,
    "µs": 1,  # micro sign, U+00B5
    "μs": 1,  # Greek letter mu, U+03BC, which keyboards and editors mix up with it
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_UNITS = "ns|us|µs|μs|ms|s|m|h|d"
_PART = re.compile(rf"(\d{{1,18}}(?:\.\d{{0,9}})?|\.\d{{1,9}})({_UNITS})")
_DURATION = re.compile(rf"(?:(?:\d{{1,18}}(?:\.\d{{0,9}})?|\.\d{{1,9}})(?:{_UNITS}))+")

DURATION_MAX = timedelta(days=3660)
"""Ten years: a longer duration is a slip of the keyboard."""

_DURATION_EXPECTED = "a duration such as 90s, 5m, 1h30m or 7d"
_SHARE_EXPECTED = "a count (3), a percentage (5%) or max(1, 5%)"


def parse_duration(text: str) -> timedelta:
    """Read `90s`, `5m`, `1h30m`, `1.5h` or `7d`; `0` needs no unit.

    Raises ValueError, whose message says what was expected and found. Negative durations and those over
    ten years are refused; anything finer than a microsecond is rounded.
    """
    compact = text.strip()
    if compact == "0":
        return timedelta(0)
    if compact.startswith("-"):
        raise ValueError(f"expected {_DURATION_EXPECTED}, found the negative {_shown(text)}")
    if re.fullmatch(r"[\d.]+", compact):
        raise ValueError(f"expected {_DURATION_EXPECTED}, found {_shown(text)} without a unit")
    if len(compact) > 64 or not _DURATION.fullmatch(compact):
        raise ValueError(f"expected {_DURATION_EXPECTED}, found {_shown(text)}")
    total = sum(_microseconds(number, unit) for number, unit in _PART.findall(compact))
    if total > DURATION_MAX // timedelta(microseconds=1):
        raise ValueError(f"expected a duration of at most ten years, found {_shown(text)}")
    return timedelta(microseconds=round(total))


def _microseconds(number: str, unit: str) -> float:
    scale = _MICROSECONDS[unit]
    return int(number) * scale if number.isdigit() else float(number) * scale


def format_duration(duration: timedelta) -> str:
    """Write a duration so that `parse_duration` reads the same one back: `1h30m`, `500ms`, `0s`."""
    rest = duration // timedelta(microseconds=1)
    if rest < 0:
        return "-" + format_duration(-duration)
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, int(_MICROSECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many of a whole: a count, a part of it, or the larger of both."""

    count: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Whole things. It holds however small the whole is."""
    ratio: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Part of the whole, 1.0 being all of it. What it comes to is rounded up."""

    def of(self, total: int) -> int:
        """How many of `total` this is: the larger of the count and the rounded-up part."""
        # 0.07 * 100 is 7.000000000000001 and must stay 7.
        return max(self.count, math.ceil(round(self.ratio * max(total, 0), 6)))

    def __str__(self) -> str:
        if not self.ratio:
            return str(self.count)
        percent = f"{round(self.ratio * 100, 6):f}".rstrip("0").rstrip(".") + "%"
        return f"max({self.count}, {percent})" if self.count else percent


_COUNT = re.compile(r"\d{1,7}")
_PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)\s*%")
_MAX = re.compile(r"max\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)")


def parse_share(text: str) -> Share:
    """Read `3`, `5%`, `5 %` or `max(1, 5 %)` (its two in either order).

    Raises ValueError, whose message says what was expected and found.
    """
    compact = text.strip()
    # The bound keeps the pattern from working hard on a text that is no share.
    pair = _MAX.fullmatch(compact) if len(compact) <= 64 else None
    terms = [_term(term) for term in (pair.groups() if pair else (compact,))]
    counts = [term for term in terms if isinstance(term, int)]
    ratios = [term for term in terms if isinstance(term, float)]
    if len(counts) + len(ratios) != len(terms) or len(counts) > 1 or len(ratios) > 1:
        raise ValueError(f"expected {_SHARE_EXPECTED}, found {_shown(text)}")
    share = Share(count=sum(counts), ratio=sum(ratios))
    if share.count > 1_000_000 or share.ratio > 10:
        raise ValueError(f"expected at most 1000000 or 1000%, found {_shown(text)}")
    return share


def _term(text: str) -> int | float | None:
    if _COUNT.fullmatch(text):
        return int(text)
    percent = _PERCENT.fullmatch(text)
    return round(float(percent.group(1)) / 100, 8) if percent else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
