"""A configuration in the file's own forms: `5m` and `max(1, 2%)` instead of seconds and pairs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from navarch_common.config.autoscaling import ExternalAutoscaling
from navarch_common.config.expand import escape
from navarch_common.config.providers import ExternalProvider
from navarch_common.config.section import REDACTED, secret_fields
from navarch_common.config.units import Share, format_duration


def plain(value: Any, *, secrets: bool = False) -> Any:
    """Mappings, lists and scalars that say what `value` says. Unless `secrets`, what may be one is hidden.

    What is None is left out. With `secrets`, `load_text` of it as YAML gives the same configuration again.
    """
    if isinstance(value, Share):
        return str(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, msgspec.Struct):
        return _section(value, secrets=secrets)
    if isinstance(value, dict):
        return {key: plain(item, secrets=secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, secrets=secrets) for item in value]
    return escape(value) if isinstance(value, str) else value


def _section(section: msgspec.Struct, *, secrets: bool) -> dict[str, Any]:
    if isinstance(section, ExternalProvider):
        limits = {"limits": plain(section.limits, secrets=secrets)}
        return {"type": section.adapter, **_settings(section.settings, secrets=secrets), **limits}
    if isinstance(section, ExternalAutoscaling):
        return {"type": section.strategy, **_settings(section.settings, secrets=secrets)}
    tag = section.__struct_config__.tag
    found: dict[str, Any] = {} if tag is None else {str(section.__struct_config__.tag_field): tag}
    hidden = frozenset() if secrets else secret_fields(type(section))
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if value is not None:
            found[name] = REDACTED if name in hidden and value else plain(value, secrets=secrets)
    return found


def _settings(settings: dict[str, Any], *, secrets: bool) -> dict[str, Any]:
    return {key: plain(value, secrets=True) if secrets else REDACTED for key, value in settings.items()}
