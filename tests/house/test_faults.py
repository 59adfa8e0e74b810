"""docs/faults.md tells of sixty faults, and of tests that exist."""

import ast
import re
from functools import cache

import pytest

from support.workspace import ROOT

FILE = ROOT / "docs/faults.md"
FAULTS = 60
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_OPEN = re.compile(r"\bOPEN: (.+)$")


def rows() -> dict[int, str]:
    """The proof of each fault, by its number."""
    return {int(number): proof for number, _, _, proof in _ROW.findall(FILE.read_text())}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_every_fault_is_there_once_and_in_order() -> None:
    numbers = [int(number) for number, *_ in _ROW.findall(FILE.read_text())]
    assert numbers == list(range(1, FAULTS + 1))


@pytest.mark.parametrize("number", range(1, FAULTS + 1))
def test_a_fault_has_tests_that_exist_or_says_what_it_waits_for(number: int) -> None:
    proof = rows()[number]
    named = _TEST.findall(proof)
    assert len(named) == proof.count("tests/"), f"fault {number}: a test is named as `tests/…/test_….py::test_…`"
    for path, name in named:
        assert (ROOT / path).is_file(), f"fault {number}: {path} is not there"
        assert name in names_in(path), f"fault {number}: {path} has no {name}; was it renamed?"
    says_why = re.search(r"[Ww]aits? for .+\.$", proof)
    assert named or says_why, f"fault {number}: name a test, or say in a sentence what it waits for"


def test_no_proof_is_still_to_come() -> None:
    still = {number: found[1] for number, proof in rows().items() if (found := _OPEN.search(proof))}
    assert not still, f"{len(still)} faults are open: {still}"
