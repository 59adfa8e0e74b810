"""One scalar becomes a value of the schema's kind: numbers in their bounds, names from their lists, durations, shares.

Pure. Every refusal says what was expected and what was found.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from msgspec import inspect

from navarch_common.config.problems import nearest_name
from navarch_common.config.units import format_duration, parse_duration, parse_share

_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_INT = re.compile(r"[+-]?\d{1,19}")
_FLOAT = re.compile(r"[+-]?(\d{1,19}(\.\d{0,19})?|\.\d{1,19})([eE][+-]?\d{1,3})?")


def read_scalar(text: str, kind: inspect.Type, extra: dict[str, Any], *, is_text: bool) -> Any:
    """Read one value. Raises ValueError, which says what was expected and found."""
    if isinstance(kind, inspect.StrType):
        return _bounded_text(text, kind, extra)
    if isinstance(kind, inspect.LiteralType):
        wanted = extra.get("synonyms", {}).get(text.lower(), text.lower())
        for value in kind.values:
            if str(value).lower() == wanted:
                return value
        raise ValueError(f"expected {expectation(kind, extra)}, found {_shown(text)}")
    if isinstance(kind, inspect.TimeDeltaType):
        return _bounded_duration(text, extra)
    if isinstance(kind, inspect.StructType):
        return parse_share(text)
    if isinstance(kind, inspect.BoolType) and not is_text and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if isinstance(kind, inspect.IntType) and not is_text and _INT.fullmatch(text):
        return _bounded_number(int(text), text, kind)
    if isinstance(kind, inspect.FloatType) and not is_text and _FLOAT.fullmatch(text):
        return _bounded_number(float(text), text, kind)
    found = f"the text {text[:60]!r}" if is_text else _shown(text)
    raise ValueError(f"expected {expectation(kind, extra)}, found {found}")


def _bounded_text(text: str, kind: inspect.StrType, extra: dict[str, Any]) -> str:
    if kind.max_length is not None and len(text) > kind.max_length:
        raise ValueError(f"expected at most {kind.max_length} characters, found {len(text)}")
    too_short = kind.min_length is not None and len(text) < kind.min_length
    if too_short or (kind.pattern is not None and not re.search(kind.pattern, text)):
        raise ValueError(f"expected {expectation(kind, extra)}, found {_shown(text)}")
    return text


def _bounded_duration(text: str, extra: dict[str, Any]) -> Any:
    duration = parse_duration(text)
    if not extra.get("min_s", 0) <= duration.total_seconds() <= extra.get("max_s", math.inf):
        raise ValueError(f"expected {expectation(inspect.TimeDeltaType(), extra)}, found {_shown(text)}")
    return duration


def _bounded_number(number: float, text: str, kind: inspect.IntType | inspect.FloatType) -> float:
    lowest, highest = kind.ge, kind.le
    if (
        not math.isfinite(number)
        or (lowest is not None and number < lowest)
        or (highest is not None and number > highest)
    ):
        raise ValueError(f"expected {expectation(kind, {})}, found {_shown(text)}")
    return number


def _plain(number: float) -> str:
    """`1`, not `1.0`. Which of the two a bound is depends on which module was imported first: equal types are one to typing."""
    return str(int(number)) if number == int(number) else str(number)


def expectation(kind: inspect.Type, extra: dict[str, Any]) -> str:
    """What a value should be, in words."""
    if "expected" in extra:
        return str(extra["expected"])
    if isinstance(kind, inspect.Metadata):
        return expectation(kind.type, kind.extra or {})
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return noun if kind.ge is None or kind.le is None else f"{noun} from {_plain(kind.ge)} to {_plain(kind.le)}"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(str(value) for value in kind.values)
    if isinstance(kind, inspect.TimeDeltaType):
        bounds = [extra.get("min_s"), extra.get("max_s")]
        words = "a duration such as 90s, 5m or 1h30m"
        if None in bounds:
            return words
        low, high = (format_duration(timedelta(seconds=bound)) for bound in bounds if bound is not None)
        return f"{words}, from {low} to {high}"
    if isinstance(kind, inspect.StructType):
        return "a count (3), a percentage (5%) or max(1, 5%)"
    return "text"


def nearest_literal(text: str, kind: inspect.Type) -> str | None:
    """The allowed value most like what was found, where values are listed."""
    return nearest_name(text, [str(value) for value in kind.values]) if isinstance(kind, inspect.LiteralType) else None


def guess(text: str) -> Any:
    """What a plain scalar means where no schema says: the JSON of it, else text."""
    lowered = text.lower()
    if lowered in ("", "~", "null"):
        return None
    if lowered in ("true", "false"):
        return lowered == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _shown(text: str) -> str:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return shown if shown and shown.isprintable() else repr(shown)
