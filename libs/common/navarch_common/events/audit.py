"""Who did what, and why: one entry for every act, a person's and our own.

An entry is committed together with what it tells of and travels through the same outbox, to a stream of its own that is
kept for 400 days: an act without its entry, or an entry without its act, does not exist.
"""

import re
from typing import Annotated, ClassVar

from msgspec import Meta, Struct, to_builtins

from navarch_common.events.base import Event
from navarch_common.model.base import Code, Name, Text

Facts = Annotated[dict[Name, Text], Meta(max_length=32)]
FACT_MAX = 1024
_UNSAFE = re.compile(r"[^a-z0-9_-]+")


class Audit(Event, frozen=True, kw_only=True, tag="audit.v1"):
    """One act: `actor` did `action` to `node` or `pool`, because of `reason`. On `navarch.audit.<actor>.<action>`."""

    KIND: ClassVar[str] = "audit"
    action: Code
    """`cordon`, `freeze`, `launch`, `terminate`, `config`…"""
    request_id: Name = ""
    """The caller's own name for what was asked, where somebody asked."""
    result: Code = "done"
    """`accepted` of a wish; `begun` before a cloud call, then `made`, `ended`, `refused`, `unknown` or `withheld`; `done`."""
    before: Facts = {}
    after: Facts = {}
    """What the act changed, by name: in both only what differs."""


def actor_token(actor: str) -> str:
    """An actor as a word of a subject: `operator:Ada L.` is `operator-ada-l`."""
    return _UNSAFE.sub("-", actor.lower()).strip("-")[:64] or "unknown"


def facts(value: Struct | None, *names: str) -> dict[str, str]:
    """Named fields of a record as words; those that say nothing are left out."""
    if value is None:
        return {}
    plain = to_builtins(value)
    words = {name: _word(plain.get(name)) for name in names}
    return {name: word for name, word in words.items() if word}


def changed(before: dict[str, str], after: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Both without what is the same in either."""
    same = {name for name in before if after.get(name) == before[name]}
    return (
        {name: word for name, word in before.items() if name not in same},
        {name: word for name, word in after.items() if name not in same},
    )


def _word(value: object) -> str:
    if value is None or value is False or value in ("", []):
        return ""
    if isinstance(value, dict):
        value = ", ".join(sorted(str(key) for key in value))
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return str(value)[:FACT_MAX]
