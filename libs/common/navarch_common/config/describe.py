"""The schema of the file as a JSON Schema, for editors and for people. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from navarch_common.config.autoscaling import ExternalAutoscaling
from navarch_common.config.providers import ExternalProvider
from navarch_common.config.schema import Config
from navarch_common.config.section import Section
from navarch_common.config.units import Share

_DURATION = {
    "type": ["string", "integer"],
    "pattern": r"^(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+)$",
    "examples": ["90s", "5m", "1h30m", "7d"],
}
_SHARE = {
    "description": (Share.__doc__ or "").strip(),
    "oneOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^([0-9]+|[0-9.]+ *%|max\([^,()]+,[^,()]+\))$"},
    ],
    "examples": [3, "5%", "max(1, 5%)"],
}
_EXTERNAL = (ExternalProvider, ExternalAutoscaling)
"""Sections whose type and keys only their adapters know."""
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""Any value may come from the environment."""


def json_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of the configuration file, aliases included and marked as deprecated.

    It knows names and kinds of values. What must hold between values, `navarch config check` says.
    """
    schema = msgspec.json.schema(Config, ref_template="#/$defs/{name}")
    sections = {section.__name__: section for section in _all_sections(Section)}
    for name, definition in schema["$defs"].items():
        _add_aliases(definition, sections.get(name))
    schema["$defs"]["Share"] = _SHARE
    for external in _EXTERNAL:
        schema["$defs"][external.__name__] = {
            "description": external.__doc__,
            "type": "object",
            "properties": {"type": {"type": "string", "not": {"enum": _known_tags(external, sections)}}},
            "required": ["type"],
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Navarch configuration",
        **_in_file_forms(schema),
    }


def _add_aliases(definition: dict[str, Any], section: type[Section] | None) -> None:
    properties = definition.get("properties", {})
    for alias, name in (section.aliases if section else {}).items():
        if name in properties:
            properties[alias] = {**properties[name], "deprecated": True, "description": f"The same as {name}."}
    for name in ("default", "discriminator"):
        definition.pop(name, None)


def _known_tags(external: type[Section], sections: dict[str, type[Section]]) -> list[str]:
    suffix = "Provider" if external is ExternalProvider else "Autoscaling"
    tags = (str(section.__struct_config__.tag) for name, section in sections.items() if name.endswith(suffix))
    return sorted(tag for tag in tags if tag not in ("None", "external"))


def _in_file_forms(value: Any) -> Any:
    """Durations as people write them, patterns in JavaScript's dialect, defaults that JSON can hold."""
    if isinstance(value, list):
        return [_in_file_forms(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("format") == "duration":
        rest = {key: item for key, item in value.items() if key not in ("type", "format", "default")}
        return {**rest, **_DURATION}
    found = {key: _in_file_forms(item) for key, item in value.items() if key != "discriminator"}
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    if found.get("type") in ("integer", "number", "boolean") and "anyOf" not in found:
        default = {"default": found.pop("default")} if "default" in found else {}
        return {**default, "anyOf": [found, _VARIABLE]}
    return found


def _all_sections(root: type[Section]) -> list[type[Section]]:
    found = [root]
    for child in root.__subclasses__():
        found += _all_sections(child)
    return found
