"""What changes between two configurations, key by key. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from navarch_common.config.render import plain
from navarch_common.config.schema import Config
from navarch_common.config.section import REDACTED

_WHOLE = ("pools", "providers")
"""Sections whose entries come and go as a whole."""
_FOLDED = ("defaults", "instance_manager")
"""Sections that say nothing which the pools do not already hold."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One key that differs."""

    kind: Literal["added", "removed", "changed"]
    path: str
    """`pools.training` where a pool came or went, `pools.training.max_nodes` where a key changed."""
    old: Any = None
    """In the file's forms. None where there was nothing; secrets are hidden."""
    new: Any = None
    """In the file's forms. None where there is nothing; secrets are hidden."""

    def __str__(self) -> str:
        if self.kind == "changed":
            return f"{self.path}: {_shown(self.old)} -> {_shown(self.new)}"
        return f"{self.path}: {self.kind}"


def diff(old: Config, new: Config) -> list[Change]:
    """All changes in the order of the schema, then of the new file. Empty when both mean the same."""
    changes: list[Change] = []
    before, after = plain(old, secrets=True), plain(new, secrets=True)
    shown = _Shown(plain(old), plain(new))
    for name in _names(before, after):
        if name not in _FOLDED:
            _compare(name, before.get(name), after.get(name), shown, changes)
    return changes


class _Shown:
    """Looks values up in renderings without secrets, so that a change of a secret is told and its value is not."""

    def __init__(self, old: Any, new: Any) -> None:
        self._old, self._new = old, new

    def pair(self, keys: tuple[str, ...]) -> tuple[Any, Any]:
        return _at(self._old, keys), _at(self._new, keys)


def _compare(path: str, old: Any, new: Any, shown: _Shown, changes: list[Change], keys: tuple[str, ...] = ()) -> None:
    keys = keys or (path,)
    if old == new:
        return
    comes_and_goes = len(keys) == 2 and keys[0] in _WHOLE
    if comes_and_goes and (old is None or new is None):
        changes.append(Change(kind="added" if old is None else "removed", path=path))
    elif _mergeable(old) and _mergeable(new):
        for name in _names(old or {}, new or {}):
            inner = (*keys, name)
            _compare(f"{path}.{name}", (old or {}).get(name), (new or {}).get(name), shown, changes, inner)
    else:
        was, will_be = shown.pair(keys)
        kind: Literal["added", "removed", "changed"] = "changed"
        if was is None or will_be is None:
            kind = "added" if was is None else "removed"
        changes.append(Change(kind=kind, path=path, old=was, new=will_be))


def _mergeable(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _names(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return list(new) + [name for name in old if name not in new]


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return value
        value = value.get(key)
    return value


def _shown(value: Any) -> str:
    return REDACTED if value == REDACTED else str(value)
