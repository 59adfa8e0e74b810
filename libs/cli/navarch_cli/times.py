"""Durations and moments as an operator types them."""

import re
from datetime import UTC, datetime

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds(text: str) -> float:
    """`90s`, `5m`, `1h30m`, `7d`. Raises `typer.BadParameter`."""
    if not _DURATION.fullmatch(text.strip()):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 5m, 1h30m or 7d")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < total <= 10 * 365 * 86400:
        raise typer.BadParameter(f"{text!r} is not between a moment and ten years")
    return total


def moment(text: str) -> str:
    """`2h` ago, or an RFC 3339 time: what the API's `since` takes. Raises `typer.BadParameter`."""
    if _DURATION.fullmatch(text.strip()):
        return text.strip()
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither how long ago (2h) nor a time (2026-11-23T08:00:00Z)") from None
    return (parsed if parsed.tzinfo else parsed.astimezone()).astimezone(UTC).isoformat()
