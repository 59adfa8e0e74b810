"""What to do with a command: a pure decision over who we are, what is done already, and now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from navarch_agent.identity import Identity
from navarch_agent.spool import DoneCommand
from navarch_common.events.messages import Command

INTERVAL_S_MIN, INTERVAL_S_MAX = 0.1, 3600.0


class Run(msgspec.Struct, frozen=True):
    """Do it: nothing speaks against it."""


class Ignore(msgspec.Struct, frozen=True):
    """It is not for us, or it is already done: no second result changes anything."""

    text: str


class Repeat(msgspec.Struct, frozen=True):
    """It is done. Whoever asks again has not heard what came of it: report it once more."""

    done: DoneCommand


class Refuse(msgspec.Struct, frozen=True):
    """It shall not be done, and the sender is told why."""

    outcome: Literal["refused", "expired"]
    text: str


Decision = Run | Ignore | Repeat | Refuse


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """How often the agent speaks. The control plane changes it with `configure`."""

    heartbeat_s: float = 5.0
    """Of a heartbeat, on average. Three missed ones make a node suspect."""
    health_check_s: float = 60.0
    """Of a report on what is wrong for longer, such as heat."""
    registration_s: float = 900.0
    """Of registering anew, for a control plane that has lost what it knew."""


def decide(command: Command, identity: Identity, done: DoneCommand | None, now: datetime) -> Decision:
    """Return what to do with `command`. `done` is what came of the same id before."""
    if command.node != identity.node:
        return Ignore(f"it is for node {command.node}")
    if done is not None:
        return Repeat(done)
    if command.generation != identity.generation:
        return Refuse("refused", f"it is for generation {command.generation}, this is generation {identity.generation}")
    if command.expires_at <= now:
        return Refuse("expired", f"it expired at {command.expires_at.isoformat()}, it is {now.isoformat()} here")
    return Run()


def configured(periods: Periods, args: Mapping[str, str]) -> Periods | str:
    """Return `periods` as `configure` wants them, or a sentence that says what is wrong with `args`."""
    wanted: dict[str, float] = {}
    for name, value in args.items():
        field = _FIELDS.get(name)
        if field is None:
            return f"{name}: no such setting; known are {', '.join(_FIELDS)}"
        seconds = _seconds(value)
        if seconds is None:
            return f"{name}: expected seconds from {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g}, found {value[:40]!r}"
        wanted[field] = seconds
    return msgspec.structs.replace(periods, **wanted)


_FIELDS = {"heartbeat_interval_s": "heartbeat_s", "health_check_interval_s": "health_check_s"}


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    # Written so that NaN fails it too.
    return seconds if INTERVAL_S_MIN <= seconds <= INTERVAL_S_MAX else None
