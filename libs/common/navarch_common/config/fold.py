"""What stands elsewhere moves to where it is meant: `defaults:` into the pools, older spellings into today's places.

This happens to nodes, before any value is read. So a default is checked like a pool's own key, its mistakes are told
at its own line, and a section is built only once. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from navarch_common.config.document import Entry, Mapping, Scalar
from navarch_common.config.pools import PoolConfig, PoolHealthConfig

_MERGED = ("health", "labels")
"""Sections where a pool's keys join those of the defaults, instead of replacing all of them."""
_LOOSE_HEALTH = ("unhealthy_after", "unhealthy_threshold", "auto_replace")
"""Keys of `health:` that the reference's documents also show directly under `defaults:`."""
_WITH_FALLBACK = ("scheduled", "predictive")


def fold(root: Mapping) -> Mapping:
    """Give every pool what it inherits."""
    root = _replaced(root, "defaults", _tidy_defaults)
    defaults = _inherited(root)
    return _replaced(root, "pools", lambda pools: _each(pools, lambda pool: _inherit(_tidy_pool(pool), defaults)))


def _inherited(root: Mapping) -> dict[str, Entry]:
    """Everything that pools inherit, by name."""
    found: dict[str, Entry] = {}
    manager = root.get("instance_manager")
    if manager is not None and isinstance(manager.value, Mapping):
        timeout = manager.value.get("registration_timeout")
        if timeout is not None:
            found["registration_timeout"] = timeout
    defaults = root.get("defaults")
    if defaults is not None and isinstance(defaults.value, Mapping):
        for entry in defaults.value.entries:
            if (name := _name(entry)) in PoolConfig.__struct_fields__:
                found[name] = entry
    return found


def _inherit(pool: Mapping, defaults: dict[str, Entry]) -> Mapping:
    said = [entry for entry in pool.entries if not (_is_blank(entry) and _name(entry) in defaults)]
    own = {_name(entry) for entry in said}
    entries = [_joined(entry, defaults.get(_name(entry))) for entry in said]
    for name, default in defaults.items():
        # A pool that lists its providers has said which ones it wants.
        if name not in own and not (name == "provider" and "providers" in own):
            entries.append(default)
    return Mapping(pool.mark, tuple(entries), pool.size)


def _joined(own: Entry, default: Entry | None) -> Entry:
    if default is None or own.key not in _MERGED:
        return own
    if not isinstance(own.value, Mapping) or not isinstance(default.value, Mapping):
        return own
    aliases = PoolHealthConfig.aliases if own.key == "health" else {}
    said = {aliases.get(entry.key, entry.key) for entry in own.value.entries}
    added = tuple(entry for entry in default.value.entries if aliases.get(entry.key, entry.key) not in said)
    return Entry(own.key, own.mark, Mapping(own.value.mark, own.value.entries + added, own.value.size))


def _tidy_defaults(defaults: Mapping) -> Mapping:
    """`defaults.unhealthy_after` means `defaults.health.unhealthy_after`."""
    loose = tuple(entry for entry in defaults.entries if entry.key in _LOOSE_HEALTH)
    health = defaults.get("health")
    if not loose or (health is not None and not isinstance(health.value, Mapping)):
        return defaults
    inside = health.value.entries if health is not None and isinstance(health.value, Mapping) else ()
    mark = health.mark if health is not None else loose[0].mark
    rest = tuple(entry for entry in defaults.entries if entry.key not in (*_LOOSE_HEALTH, "health"))
    merged = Entry("health", mark, Mapping(mark, inside + loose, 1 + len(inside) + len(loose)))
    return Mapping(defaults.mark, (*rest, merged), defaults.size)


def _tidy_pool(pool: Mapping) -> Mapping:
    """`fallback:` beside `autoscaling:` is meant inside it, as the reference's documents show it."""
    fallback = pool.get("fallback")
    scaling = next((entry for entry in pool.entries if _name(entry) == "autoscaling"), None)
    if fallback is None or scaling is None or not isinstance(scaling.value, Mapping):
        return pool
    kind = scaling.value.get("type")
    takes_one = kind is not None and getattr(kind.value, "text", None) in _WITH_FALLBACK
    if not takes_one or scaling.value.get("fallback") is not None:
        return pool
    inner = Mapping(scaling.value.mark, (*scaling.value.entries, fallback), scaling.value.size + fallback.value.size)
    kept = tuple(entry for entry in pool.entries if entry is not fallback and entry is not scaling)
    return Mapping(pool.mark, (*kept, Entry(scaling.key, scaling.mark, inner)), pool.size)


def _is_blank(entry: Entry) -> bool:
    return isinstance(entry.value, Scalar) and entry.value.is_null


def _replaced(root: Mapping, key: str, change: Callable[[Mapping], Mapping]) -> Mapping:
    """The same mapping with one section changed. Anything but a section is left for whoever reads it to refuse."""
    return _each(root, change, only=key)


def _each(mapping: Mapping, change: Callable[[Mapping], Mapping], only: str | None = None) -> Mapping:
    entries = tuple(
        Entry(entry.key, entry.mark, change(entry.value))
        if only in (None, entry.key) and isinstance(entry.value, Mapping)
        else entry
        for entry in mapping.entries
    )
    return Mapping(mapping.mark, entries, mapping.size)


def _name(entry: Entry) -> str:
    return PoolConfig.aliases.get(entry.key, entry.key)
