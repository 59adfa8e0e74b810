"""Golden schema and sample of every message and record: what another release, or a stranger, has to be able to read."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from navarch_common.events import kinds, messages
from navarch_common.events.audit import Audit
from navarch_common.model import FAMILIES

DIRECTORY = Path(__file__).resolve().parents[1] / "golden"

WORDS = ["training", "training-k7x2mpd", "operator:alice", "xid-79", "2026"]
"""Strings to fill samples with: the first that a field's pattern allows."""


def types() -> dict[str, type[msgspec.Struct]]:
    """Every message and record by the name of its golden file."""
    found: dict[str, type[msgspec.Struct]] = {}
    for kind in (*kinds.ALL, Audit, *messages.MESSAGES):
        config = kind.__struct_config__
        found[f"message.{config.tag or kind.__name__.lower()}"] = kind
    for family in FAMILIES:
        found[f"record.{family.name.replace('/', '-')}.v{family.schema}"] = family.record
    return found


def golden(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What the golden file holds: the schema without prose, and a sample in which every field has a value."""
    sample = msgspec.convert(example(inspect.type_info(kind)), kind)
    return {"schema": _without_prose(msgspec.json.schema(kind)), "sample": json.loads(msgspec.json.encode(sample))}


def write() -> list[str]:
    """Writes every golden file anew, removes those of types that are gone, and returns the names of what changed."""
    wanted = {f"{name}.json": _text(golden(kind)) for name, kind in types().items()}
    changed = []
    for name, text in wanted.items():
        file = DIRECTORY / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            changed.append(name)
    for file in DIRECTORY.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
            changed.append(f"{file.name} (removed)")
    return changed


def example(kind: inspect.Type) -> Any:
    """A value of a type, as JSON would bring it."""
    maker = _MAKERS.get(type(kind))
    if maker is None:
        raise TypeError(f"tests/support/golden.py has no example of {kind}: teach it one")
    return maker(kind)


def _struct(kind: inspect.StructType) -> dict[str, Any]:
    fields = {field.encode_name: _unlike(field.default, example(field.type)) for field in kind.fields}
    return {**({kind.tag_field: kind.tag} if kind.tag_field else {}), **fields}


def _unlike(default: Any, value: Any) -> Any:
    """A field that holds its default may not be encoded at all."""
    return not value if value is True and default is True else value


def _union(kind: inspect.UnionType) -> Any:
    return example(next(part for part in kind.types if not isinstance(part, inspect.NoneType)))


def _items(kind: Any) -> list[Any]:
    return [example(kind.item_type)]


def _word(kind: inspect.StrType) -> str:
    for word in WORDS:
        try:
            msgspec.convert(word, _constrained(kind))
        except msgspec.ValidationError:
            continue
        return word
    raise TypeError(f"none of WORDS in tests/support/golden.py matches {kind.pattern!r}: add one that does")


def _constrained(kind: inspect.StrType) -> Any:
    meta = msgspec.Meta(pattern=kind.pattern, min_length=kind.min_length, max_length=kind.max_length)
    return Annotated[str, meta]


def _without_prose(schema: Any) -> Any:
    """Docstrings may be bettered without anybody's leave. (A field called `title` has a schema under it, no string.)"""
    if isinstance(schema, dict):
        return {
            key: _without_prose(value)
            for key, value in schema.items()
            if not (key in {"description", "title"} and isinstance(value, str))
        }
    if isinstance(schema, list | tuple):
        return [_without_prose(item) for item in schema]
    return schema


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


_MAKERS: dict[type[inspect.Type], Callable[[Any], Any]] = {
    inspect.StructType: _struct,
    inspect.UnionType: _union,
    inspect.Metadata: lambda kind: example(kind.type),
    inspect.StrType: _word,
    inspect.IntType: lambda kind: max(kind.ge or 0, min(7, kind.le or 7)),
    inspect.FloatType: lambda kind: max(kind.ge or 0.0, min(0.75, kind.le or 0.75)),
    inspect.BoolType: lambda _: True,
    inspect.DateTimeType: lambda _: "2026-01-02T03:04:05.678901Z",
    inspect.TimeDeltaType: lambda _: msgspec.to_builtins(timedelta(seconds=90)),
    inspect.LiteralType: lambda kind: kind.values[-1],
    inspect.EnumType: lambda kind: [member.value for member in kind.cls][-1],
    inspect.DictType: lambda kind: {example(kind.key_type): example(kind.value_type)},
    inspect.VarTupleType: _items,
    inspect.ListType: _items,
    inspect.SetType: _items,
    inspect.FrozenSetType: _items,
    inspect.AnyType: lambda _: "anything",
}
