"""What every part of the configuration has in common: the base class and the kinds of values.

A kind of value is an annotated type. What msgspec cannot bound by itself stands in `Meta.extra`: `min_s` and
`max_s` bound a duration in seconds, `secret` keeps a value out of every message, listing and log line.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, get_type_hints

import msgspec
from msgspec import Meta

from navarch_common.ids import ID_LENGTH_MAX, ID_PATTERN

Id = Annotated[
    str,
    Meta(
        pattern=ID_PATTERN,
        max_length=ID_LENGTH_MAX,
        extra={"expected": "an id: lower-case letters, digits and inner hyphens, at most 63 characters"},
    ),
]
"""What a pool, a provider or a cluster is called: the rule of `navarch_common.ids`, with words for who broke it."""
Text = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]+\Z",
        extra={"expected": "printable text of at most 256 characters"},
    ),
]
"""A short, printable string: a region, a zone, an image."""
Path = Annotated[
    str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+\Z", extra={"expected": "a path"})
]
"""A file's path. A relative one starts at the working directory."""
Url = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9+.-]*://[^\s/?#]+[^\s]*\Z",
        max_length=2048,
        extra={"expected": "a URL such as http://host:8080", "secret": True},
    ),
]
"""An address with its scheme. It may hold a password, so it is never shown."""
Ratio = Annotated[float, Meta(ge=0, le=1)]
"""A part of the whole, 0 to 1."""
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
"""How many. A million is more than anybody has."""
Percent = Annotated[int, Meta(ge=0, le=100)]
"""Whole percents of utilization."""
Hour = Annotated[int, Meta(ge=0, le=24)]
"""An hour of the day. 24 is the midnight that ends it."""
Interval = Annotated[timedelta, Meta(extra={"min_s": 0.1, "max_s": 86_400.0})]
"""How often. Under 100 ms is a busy loop."""
Patience = Annotated[timedelta, Meta(extra={"min_s": 0.0, "max_s": 31_622_400.0})]
"""How long to wait, at most a year. Zero means not at all."""
Labels = dict[
    Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?\Z",
            max_length=253,
            extra={"expected": "a label's name: letters, digits, and inner -, _, . and /"},
        ),
    ],
    Annotated[str, Meta(max_length=256)],
]
"""Labels of machines, by name."""

Settings = Annotated[dict[str, Any], Meta(extra={"secret": True})]
"""Keys that only somebody else's adapter understands, one of which may be a password."""

REDACTED = "<hidden>"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mapping of the file. Its `repr` hides what may hold a secret."""

    aliases: ClassVar[dict[str, str]] = {}
    """Other spellings that are accepted for a key: alias to name."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys whose name is settled and whose meaning comes with a later release."""

    def __repr__(self) -> str:
        hidden = secret_fields(type(self))
        shown = (
            f"{name}={REDACTED if name in hidden and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def secret_fields(section: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of a section whose values are never shown."""
    found = _SECRET_FIELDS.get(section)
    if found is None:
        hints = get_type_hints(section, include_extras=True)
        found = frozenset(name for name in section.__struct_fields__ if _is_secret(hints[name]))
        _SECRET_FIELDS[section] = found
    return found


_SECRET_FIELDS: dict[type[msgspec.Struct], frozenset[str]] = {}


def _is_secret(hint: object) -> bool:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and (meta.extra or {}).get("secret"):
            return True
    return any(_is_secret(part) for part in getattr(hint, "__args__", ()))
