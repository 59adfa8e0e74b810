"""The repository as the house rules see it: its members, its tracked files, its settings."""

import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Member(NamedTuple):
    """One distribution of the workspace."""

    path: Path
    project: dict[str, Any]

    @property
    def package(self) -> Path:
        """The one import package of this distribution."""
        return self.path / str(self.project["name"]).replace("-", "_")


@cache
def members() -> list[Member]:
    files = sorted([*ROOT.glob("services/*/pyproject.toml"), *ROOT.glob("libs/*/pyproject.toml")])
    return [Member(file.parent, tomllib.loads(file.read_text())["project"]) for file in files]


@cache
def settings() -> dict[str, Any]:
    """The root pyproject.toml's [tool] table."""
    tools: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return tools


@cache
def tracked_files() -> list[Path]:
    """Every file that git tracks or would track; every file outside the usual droppings where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return [file for file in sorted(ROOT.rglob("*")) if file.is_file() and not _dropping(file)]
    return [file for name in sorted(filter(None, listed.split("\0"))) if (file := ROOT / name).is_file()]


def tracked_text() -> Iterator[tuple[Path, str]]:
    """Tracked files that are text, with their content."""
    for file in tracked_files():
        try:
            yield file, file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def python_modules() -> list[Path]:
    """The product's own modules, generated ones apart."""
    return [
        file for member in members() for file in sorted(member.package.rglob("*.py")) if "_pb2" not in file.name
    ]  # fmt: skip


def module_name(file: Path) -> str:
    """The dotted name under which a module of a member is imported."""
    member = next(member for member in members() if member.package in file.parents)
    parts = file.relative_to(member.path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _dropping(file: Path) -> bool:
    return bool({".venv", "__pycache__", "navarch-data", ".git"} & set(file.relative_to(ROOT).parts))
