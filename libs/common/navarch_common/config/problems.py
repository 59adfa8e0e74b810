"""What is wrong with a configuration: each mistake with its place, what was found, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import msgspec

from navarch_common.errors import NavarchError

PROBLEMS_MAX = 100
"""More than a screenful helps nobody; what follows is most often the same mistake again."""


class Mark(msgspec.Struct, frozen=True):
    """A place in a text, both counted from 1."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake."""

    file: str
    line: int | None = None
    """Counted from 1. None where the whole file is meant."""
    column: int | None = None
    """Counted from 1, in characters."""
    path: str = ""
    """The key, as in `pools.training.providers[0].name`. Empty where the whole file is meant."""
    message: str
    """What was found and what was expected. It never holds a value that came from the environment."""
    nearest: str | None = None
    """The valid name that is most like the one found."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        key = f" {self.path}:" if self.path else ""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{place}:{key} {self.message}{hint}"


class ConfigError(NavarchError):
    """A configuration cannot be used. `problems` holds every mistake found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Report:
    """Collects the mistakes of one file, and knows where each key stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[Problem] = []
        self._marks: dict[str, Mark] = {}
        self._bad: set[str] = set()

    def place(self, path: str, mark: Mark) -> None:
        """Remember where a key stands. The root is the empty path."""
        self._marks[path] = mark

    def add(self, path: str, message: str, *, mark: Mark | None = None, nearest: str | None = None) -> None:
        """Note a mistake at `mark`, or where `path` (or what encloses it) stands."""
        where = mark or self.mark(path)
        self._bad.update(_with_ancestors(path))
        self._problems.append(
            Problem(file=self.file, line=where.line, column=where.column, path=path, message=message, nearest=nearest)
        )

    def is_bad(self, path: str) -> bool:
        """Whether a mistake is known at this key or below: what follows from it need not be told."""
        return path in self._bad

    @property
    def is_long(self) -> bool:
        """Whether more is known than will be told, so that looking for hints is wasted."""
        return len(self._problems) > PROBLEMS_MAX

    def problems(self) -> tuple[Problem, ...]:
        """All mistakes in the order of the file, each told once: where it was written, not where it was inherited."""
        told: dict[tuple[int, int, str], Problem] = {}
        for problem in sorted(self._problems, key=_order):
            told.setdefault((problem.line or 0, problem.column or 0, problem.message), problem)
        return tuple(told.values())[:PROBLEMS_MAX]

    def mark(self, path: str) -> Mark:
        """Where a key stands, or where the nearest thing that encloses it does."""
        while path:
            if path in self._marks:
                return self._marks[path]
            path = _parent(path)
        return self._marks.get("", Mark(1, 1))


def _parent(path: str) -> str:
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def _with_ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = _parent(path)


def _order(problem: Problem) -> tuple[int, int, str, bool]:
    return (problem.line or 0, problem.column or 0, problem.message, not problem.path.startswith("defaults"))


def nearest_name(word: str, names: Iterable[str]) -> str | None:
    """The name most like `word`, or None when none is."""
    matches = get_close_matches(word.lower()[:128], sorted(names), n=1, cutoff=0.6)
    return matches[0] if matches else None
