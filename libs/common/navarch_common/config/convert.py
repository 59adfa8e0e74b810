"""A tree of nodes becomes a `Config`: each value is read as the schema's type for its key, and every mistake is noted.

The schema is asked through `msgspec.inspect`, so a new field needs no line here. A section with a mistake is still
built where its other keys allow, so that one run shows all mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Environment
from functools import cache
from typing import Any, Final, TypeVar, cast

from msgspec import inspect

from navarch_common.config.autoscaling import ExternalAutoscaling
from navarch_common.config.document import Entry, Mapping, Node, Scalar, Sequence, below, describe
from navarch_common.config.expand import ExpansionError, expand
from navarch_common.config.installed import Installed
from navarch_common.config.problems import Report, nearest_name
from navarch_common.config.providers import ExternalProvider
from navarch_common.config.scalars import expectation, guess, nearest_literal, read_scalar
from navarch_common.config.section import Section
from navarch_common.config.units import Share

S = TypeVar("S", bound=Section)


class _Invalid:
    """Stands for a value whose mistake has been noted."""


INVALID: Final = _Invalid()


class Converter:
    """Reads nodes as values. One for each file."""

    def __init__(self, report: Report, env: Environment[str, str], installed: Installed) -> None:
        self._report = report
        self._env = env
        self._installed = installed

    def section(self, node: Mapping, section: type[S], path: str = "") -> S | None:
        """Read a mapping as a section. None when it lacks what has no default; why is in the report."""
        self._report.place(path, node.mark)
        built = self._struct(node, _struct_type(section), path)
        return built if isinstance(built, section) else None

    def _value(self, node: Node, kind: inspect.Type, path: str, extra: dict[str, Any]) -> Any:
        if isinstance(kind, inspect.Metadata):
            return self._value(node, kind.type, path, {**extra, **(kind.extra or {})})
        if isinstance(kind, inspect.UnionType):
            return self._union(node, kind, path, extra)
        if isinstance(kind, inspect.StructType) and kind.cls is not Share:
            return self._mapping_or_nothing(node, path, lambda mapping: self._struct(mapping, kind, path))
        if isinstance(kind, inspect.DictType):
            return self._mapping_or_nothing(node, path, lambda mapping: self._dict(mapping, kind, path))
        if isinstance(kind, inspect.VarTupleType):
            return self._tuple(node, kind, path)
        if isinstance(kind, inspect.AnyType):
            return self._any(node, path)
        return self._scalar(node, kind, path, extra)

    def _union(self, node: Node, kind: inspect.UnionType, path: str, extra: dict[str, Any]) -> Any:
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        if isinstance(node, Scalar) and node.is_null and len(members) < len(kind.types):
            return None
        if len(members) == 1:
            return self._value(node, members[0], path, extra)
        tagged = {str(member.tag): member for member in members if isinstance(member, inspect.StructType)}
        return self._mapping_or_nothing(node, path, lambda mapping: self._tagged(mapping, tagged, path))

    def _mapping_or_nothing(self, node: Node, path: str, read: Callable[[Mapping], Any]) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            node = Mapping(node.mark, (), 1)
        if not isinstance(node, Mapping):
            self._report.add(path, f"expected a mapping of keys to values, found {describe(node)}")
            return INVALID
        return read(node)

    def _struct(self, node: Mapping, kind: inspect.StructType, path: str) -> Any:
        section = cast("type[Section]", kind.cls)
        fields = {field.name: field for field in kind.fields}
        entries = self._entries(node, section, set(fields) | ({kind.tag_field} if kind.tag_field else set()), path)
        values: dict[str, Any] = {}
        for name, entry in entries.items():
            if name == kind.tag_field and name not in fields:
                continue
            value = self._field(entry, fields[name], below(path, name))
            if value is not INVALID:
                values[name] = value
        lacking = [name for name, field in fields.items() if field.required and name not in values]
        for name in lacking:
            if name not in entries:
                self._report.add(below(path, name), "this key is required", mark=self._report.mark(path))
        return INVALID if lacking else section(**values)

    def _field(self, entry: Entry, field: inspect.Field, path: str) -> Any:
        if isinstance(entry.value, Scalar) and not field.required and self._is_blank(entry.value):
            # A key with nothing behind it says as little as no key.
            return INVALID
        return self._value(entry.value, field.type, path, {})

    def _is_blank(self, node: Scalar) -> bool:
        if node.is_null or not node.text:
            return True
        try:
            return "${" in node.text and not expand(node.text, self._env)
        except ExpansionError:
            return False

    def _entries(self, node: Mapping, section: type[Section], names: set[str], path: str) -> dict[str, Entry]:
        """The entries of a section by name, aliases resolved. Notes unknown and repeated keys."""
        found: dict[str, Entry] = {}
        for entry in node.entries:
            here = below(path, entry.key)
            self._report.place(here, entry.mark)
            name = section.aliases.get(entry.key, entry.key)
            self._report.place(below(path, name), entry.mark)
            if name in section.later:
                if not (isinstance(entry.value, Scalar) and entry.value.is_null):
                    self._report.add(here, f"{name} is not available in this release", mark=entry.mark)
            elif name not in names:
                nearest = None if self._report.is_long else nearest_name(entry.key, names | set(section.aliases))
                self._report.add(here, f"unknown key {entry.key!r:.100}", mark=entry.mark, nearest=nearest)
            elif name in found:
                message = f"the same as {found[name].key!r}, which is already set in line {found[name].mark.line}"
                self._report.add(here, message, mark=entry.mark)
            else:
                found[name] = entry
        return found

    def _tagged(self, node: Mapping, members: dict[str, inspect.StructType], path: str) -> Any:
        entry = node.get("type")
        known = set(members) - {"external"}
        for each in node.entries:
            self._report.place(below(path, each.key), each.mark)
        if entry is None:
            expected = ", ".join(sorted(known))
            self._report.add(
                below(path, "type"), f"this key is required: one of {expected}", mark=self._report.mark(path)
            )
            return INVALID
        tag = self._scalar(entry.value, inspect.StrType(), below(path, "type"), {})
        if tag is INVALID:
            return INVALID
        external = members.get("external")
        plugged = self._plugged(external)
        if tag in known and isinstance(tag, str):
            return self._struct(node, members[tag], path)
        if tag in plugged and external is not None:
            return self._external(node, external, str(tag), path)
        expected = ", ".join(sorted(known | plugged))
        self._report.add(
            below(path, "type"),
            f"expected one of {expected}, found {describe(entry.value)}",
            nearest=nearest_name(str(tag), known | plugged),
        )
        return INVALID

    def _plugged(self, external: inspect.StructType | None) -> frozenset[str]:
        if external is None:
            return frozenset()
        return self._installed.providers if external.cls is ExternalProvider else self._installed.autoscalers

    def _external(self, node: Mapping, kind: inspect.StructType, name: str, path: str) -> Any:
        """An entry that somebody else's adapter will read: its keys are kept as they are."""
        own = [entry for entry in node.entries if entry.key not in ("type", "limits")]
        settings = {entry.key: self._any(entry.value, below(path, entry.key)) for entry in own}
        if kind.cls is ExternalAutoscaling:
            return ExternalAutoscaling(strategy=name, settings=settings)
        limits = node.get("limits")
        shared = (
            {"limits": self._value(limits.value, _field_type(kind, "limits"), below(path, "limits"), {})}
            if limits
            else {}
        )
        return ExternalProvider(
            adapter=name, settings=settings, **{k: v for k, v in shared.items() if v is not INVALID}
        )

    def _dict(self, node: Mapping, kind: inspect.DictType, path: str) -> Any:
        values: dict[str, Any] = {}
        for entry in node.entries:
            here = below(path, entry.key)
            self._report.place(here, entry.mark)
            key = self._scalar(Scalar(entry.mark, entry.key, plain=False), kind.key_type, here, {"is_key": True})
            value = self._value(entry.value, kind.value_type, here, {})
            if key is not INVALID and value is not INVALID:
                values[entry.key] = value
        return values

    def _tuple(self, node: Node, kind: inspect.VarTupleType, path: str) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return ()
        if not isinstance(node, Sequence):
            self._report.add(path, f"expected a list, found {describe(node)}")
            return INVALID
        values = []
        for index, item in enumerate(node.items):
            here = f"{path}[{index}]"
            self._report.place(here, item.mark)
            values.append(self._value(item, kind.item_type, here, {}))
        return tuple(value for value in values if value is not INVALID)

    def _any(self, node: Node, path: str) -> Any:
        if isinstance(node, Mapping):
            return {entry.key: self._any(entry.value, below(path, entry.key)) for entry in node.entries}
        if isinstance(node, Sequence):
            return [self._any(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        text = self._text(node, path)
        if isinstance(text, _Invalid) or not node.plain:
            return "" if isinstance(text, _Invalid) else text
        return guess(text)

    def _text(self, node: Scalar, path: str) -> str | _Invalid:
        try:
            return expand(node.text, self._env)
        except ExpansionError as error:
            self._report.add(path, str(error))
            return INVALID

    def _scalar(self, node: Node, kind: inspect.Type, path: str, extra: dict[str, Any]) -> Any:
        if isinstance(kind, inspect.Metadata):
            return self._scalar(node, kind.type, path, {**extra, **(kind.extra or {})})
        if not isinstance(node, Scalar) or node.is_null:
            self._report.add(path, f"expected {expectation(kind, extra)}, found {describe(node)}")
            return INVALID
        text = node.text if extra.get("is_key") else self._text(node, path)
        if isinstance(text, _Invalid):
            return INVALID
        # What came out of a variable was never meant as a text in quotes, and it is not for the eyes of a reader.
        from_env = text != node.text
        try:
            return read_scalar(text, kind, extra, is_text=not node.plain and not from_env)
        except ValueError as error:
            hidden = from_env or bool(extra.get("secret"))
            found = "what stands here" if extra.get("secret") and not from_env else describe(node)
            message = f"expected {expectation(kind, extra)}, found {found}" if hidden else str(error)
            nearest = None if hidden else nearest_literal(text, kind)
            self._report.add(path, message, nearest=nearest)
            return INVALID


@cache
def _struct_type(section: type[Section]) -> inspect.StructType:
    kind = inspect.type_info(section)
    assert isinstance(kind, inspect.StructType)
    return kind


def _field_type(kind: inspect.StructType, name: str) -> inspect.Type:
    return next(field.type for field in kind.fields if field.name == name)
