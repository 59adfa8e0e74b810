"""Documents that name their proof: `tests/….py::test_…`, and what they name exists."""

import ast
import re
from functools import cache

from support.workspace import ROOT

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def proofs_in(text: str) -> list[tuple[str, str]]:
    """The tests that `text` names, each of which is there."""
    named = _TEST.findall(text)
    assert len(named) == text.count("tests/"), f"a test is named as `tests/…/test_….py::test_…`, found {text!r}"
    for path, name in named:
        assert (ROOT / path).is_file(), f"{path} is not there"
        assert name in _names_in(path), f"{path} has no {name}; was it renamed?"
    return named


@cache
def _names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))
