"""docs/features.md tells what Navarch has beside others, and of tests that exist."""

import re

import pytest

from support.proofs import proofs_in
from support.workspace import ROOT

TEXT = (ROOT / "docs/features.md").read_text()
HAS = dict(re.findall(r"^\| ([^|]+) \| \*\*(yes|partly|no)\*\* \|", TEXT, re.MULTILINE))
PROOF = {
    name: (what, proof)
    for name, what, proof in re.findall(r"^\| ([^|*]+) \| ([^|*]+) \| ([^|]*) \|$", TEXT, re.MULTILINE)
}


def test_both_tables_have_the_same_rows() -> None:
    assert len(HAS) >= 39
    assert list(HAS) == list(PROOF)


@pytest.mark.parametrize("name", HAS)
def test_what_there_is_has_tests_that_exist_and_what_is_missing_is_said(name: str) -> None:
    what, proof = PROOF[name]
    assert what.endswith(".")
    assert bool(proofs_in(proof)) is (HAS[name] != "no"), "yes and partly name tests, no names none"
    assert (what == "As the row says.") is (HAS[name] == "yes"), "what is not there, or not whole, says what is missing"
