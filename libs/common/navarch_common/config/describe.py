"""The schema of the file as a JSON Schema, for editors and for people."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec

from navarch_common.config.autoscaling import ExternalAutoscaling
from navarch_common.config.providers import ExternalProvider
from navarch_common.config.schema import Config
from navarch_common.config.section import Section
from navarch_common.config.units import Share, format_duration

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
        _add_notes(definition, sections.get(name))
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


def _add_notes(definition: dict[str, Any], section: type[Section] | None) -> None:
    """What stands under each field becomes its description."""
    for name, note in (notes(section) if section else {}).items():
        if name in definition.get("properties", {}):
            definition["properties"][name]["description"] = note


def notes(section: type[Section]) -> dict[str, str]:
    """The note under each field of a section, its bases' included."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section) and base is not Section:
            body = ast.parse(inspect.getsource(base)).body[0]
            assert isinstance(body, ast.ClassDef)
            found |= dict(_notes_in(body))
    return found


def _notes_in(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, note in pairwise(body.body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
            yield field.target.id, " ".join(str(note.value.value).split())


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
        default = value.get("default")
        if isinstance(default, str):
            rest["default"] = format_duration(msgspec.convert(default, timedelta))
        return {**_DURATION, **rest}
    if "$ref" in value:
        # The default of a section is what its own keys have as defaults.
        value = {key: item for key, item in value.items() if key != "default"}
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
