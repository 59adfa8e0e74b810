"""docs/faults.md tells of sixty faults, and of tests that exist."""

import re

import pytest

from support.proofs import proofs_in
from support.workspace import ROOT

FILE = ROOT / "docs/faults.md"
FAULTS = 60
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_OPEN = re.compile(r"\bOPEN: (.+)$")


def rows() -> dict[int, str]:
    """The proof of each fault, by its number."""
    return {int(number): proof for number, _, _, proof in _ROW.findall(FILE.read_text())}


def test_every_fault_is_there_once_and_in_order() -> None:
    numbers = [int(number) for number, *_ in _ROW.findall(FILE.read_text())]
    assert numbers == list(range(1, FAULTS + 1))


@pytest.mark.parametrize("number", range(1, FAULTS + 1))
def test_a_fault_has_tests_that_exist_or_says_what_it_waits_for(number: int) -> None:
    proof = rows()[number]
    says_why = re.search(r"[Ww]aits? for .+\.$", proof)
    assert proofs_in(proof) or says_why, f"fault {number}: name a test, or say in a sentence what it waits for"


def test_no_proof_is_still_to_come() -> None:
    still = {number: found[1] for number, proof in rows().items() if (found := _OPEN.search(proof))}
    assert not still, f"{len(still)} faults are open: {still}"
