"""YAML text becomes a tree of nodes that know their line and column.

We compose the tree from the parser's events instead of loading values. So marks survive, duplicate keys are seen, an
alias costs nothing until its size is known, and no value is guessed (`no` is not a boolean where a text is expected):
what a scalar means is decided by the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from navarch_common.config.problems import ConfigError, Mark, Problem, Report

TEXT_BYTES_MAX = 1_048_576
"""1 MiB: what a committed generation may hold. A thousand pools need a third of it."""
DEPTH_MAX = 32
"""The schema itself is 6 deep; strategies inside strategies make it more."""
NODES_MAX = 100_000
"""Nodes with every alias written out: an alias bomb is refused before it grows."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as it was written."""

    mark: Mark
    text: str
    plain: bool
    """Without quotes, so that it may be a number, a boolean or nothing."""
    size: int = 1

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value."""

    key: str
    mark: Mark
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order of the file; each key once."""

    mark: Mark
    entries: tuple[Entry, ...]
    size: int

    def get(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in order."""

    mark: Mark
    items: tuple[Node, ...]
    size: int


Node = Scalar | Mapping | Sequence


def parse(text: str, report: Report) -> Mapping:
    """Read one YAML document whose root is a mapping.

    Duplicate keys go to `report`. Raises ConfigError where nothing sensible can follow: bad syntax, an empty file,
    another root, several documents, tags, and what is larger, deeper or more repetitive than the limits.
    """
    try:
        root = _Composer(text, report).root()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(report.file, text, error)]) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        mark = _mark_of(text, position) if isinstance(position, int) else Mark(1, 1)
        message = f"not readable as YAML: {getattr(error, 'reason', None) or 'a character that has no place here'}"
        raise ConfigError([_problem(report.file, mark, message)]) from None
    if root is None or (isinstance(root, Scalar) and root.is_null):
        raise ConfigError([_problem(report.file, Mark(1, 1), "the file is empty; expected at least `pools:`")])
    if not isinstance(root, Mapping):
        message = f"expected keys such as `pools:`, found {describe(root)}"
        raise ConfigError([_problem(report.file, root.mark, message)])
    return root


def below(path: str, key: str) -> str:
    """The path of a key inside the mapping at `path`."""
    shown = key if key.isprintable() and len(key) <= 80 else repr(key[:77])
    return f"{path}.{shown}" if path else shown


def describe(node: Node) -> str:
    """What a node is, in words for a message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.is_null:
        return "nothing"
    shown = node.text if len(node.text) <= 60 else node.text[:57] + "..."
    return shown if node.plain and shown.isprintable() else repr(shown)


class _Composer:
    """Builds the tree from the event stream. Recursion is bounded by DEPTH_MAX, whatever the text says."""

    def __init__(self, text: str, report: Report) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._report = report
        self._anchors: dict[str, Node | None] = {}
        """None while the anchored node is still being read: an alias inside itself."""
        self._count = 0

    def root(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._refusal(event, "expected one document, found a second one")
                root = self._node(next(self._events), 1, "")
        return root

    def _node(self, event: yaml.Event, depth: int, path: str) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.NodeEvent)
        if depth > DEPTH_MAX:
            raise self._refusal(event, f"nested more than {DEPTH_MAX} deep")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise self._refusal(event, f"tags such as {str(tag)[:60]!r} have no place in a configuration")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = self._build(event, depth, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        node = self._anchors.get(event.anchor or "")
        if event.anchor not in self._anchors:
            raise self._refusal(event, f"the alias *{event.anchor} has no anchor before it")
        if node is None:
            raise self._refusal(event, f"the alias *{event.anchor} stands inside itself")
        self._grow(event, node.size)
        return node

    def _build(self, event: yaml.NodeEvent, depth: int, path: str) -> Node:
        mark = _mark(event)
        self._grow(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(mark, event.value, plain=bool(event.implicit[0]) and event.tag is None)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1, f"{path}[{len(items)}]"))
            return Sequence(mark, tuple(items), 1 + sum(item.size for item in items))
        entries = []
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key = self._node(inner, depth + 1, path)
            if not isinstance(key, Scalar):
                raise self._refusal(inner, f"expected a name as key, found {describe(key)}")
            value = self._node(next(self._events), depth + 1, below(path, key.text))
            entries.append(Entry(key.text, _mark(inner), value))
        return self._mapping(mark, entries, path)

    def _mapping(self, mark: Mark, entries: list[Entry], path: str) -> Mapping:
        own: dict[str, Entry] = {}
        merged: list[Mapping] = []
        for entry in entries:
            if entry.key == "<<":
                merged.extend(self._merge_sources(entry, path))
            elif (first := own.get(entry.key)) is not None:
                message = f"duplicate key, already set in line {first.mark.line}"
                self._report.add(below(path, entry.key), message, mark=entry.mark)
            else:
                own[entry.key] = entry
        for source in merged:
            for entry in source.entries:
                own.setdefault(entry.key, entry)
        return Mapping(mark, tuple(own.values()), 1 + sum(1 + entry.value.size for entry in own.values()))

    def _merge_sources(self, entry: Entry, path: str) -> tuple[Mapping, ...]:
        sources = entry.value.items if isinstance(entry.value, Sequence) else (entry.value,)
        mappings = tuple(source for source in sources if isinstance(source, Mapping))
        if len(mappings) != len(sources):
            self._report.add(below(path, "<<"), "`<<` merges mappings, found something else", mark=entry.mark)
        return mappings

    def _grow(self, event: yaml.Event, size: int) -> None:
        self._count += size
        if self._count > NODES_MAX:
            raise self._refusal(event, f"more than {NODES_MAX} values once every alias is written out")

    def _refusal(self, event: yaml.Event, message: str) -> ConfigError:
        return ConfigError([_problem(self._report.file, _mark(event), message)])


def _mark(event: yaml.Event) -> Mark:
    start = event.start_mark
    return Mark(start.line + 1, start.column + 1) if start else Mark(1, 1)


def _mark_of(text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(before.count("\n") + 1, position - before.rfind("\n"))


def _problem(file: str, mark: Mark, message: str) -> Problem:
    return Problem(file=file, line=mark.line, column=mark.column, message=message)


def _syntax_problem(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    where = error.problem_mark or error.context_mark
    mark = Mark(where.line + 1, where.column + 1) if where else Mark(1, 1)
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return _problem(file, mark, "a tab cannot indent YAML; use spaces")
    words = ", ".join(part for part in (error.context, error.problem) if part)
    return _problem(file, mark, f"not readable as YAML: {words}")
