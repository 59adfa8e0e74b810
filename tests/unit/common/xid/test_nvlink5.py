"""NVLink 5: what the registers of Xid 144 to 150 ask for, in the layouts of both driver generations."""

from __future__ import annotations

import pytest

from navarch_common.xid.nvlink5 import XIDS, NvlinkRule, decode_nvlink, nvlink_rules

RULES = [rule for code in XIDS for rule in nvlink_rules(code)]


def line(unit: str, interrupt: int, status: int, *, word: str = "Nonfatal") -> str:
    return f"{unit}  {word}   XC0 i0 Link 03 (0x{interrupt:08x} 0x{status:08x} 0x00000000 0x00000000)"


def test_the_table_is_whole() -> None:
    assert len(RULES) == 95
    actions = [rule.action for rule in RULES]
    assert (actions.count("none"), actions.count("reset_gpu"), actions.count("follow_xid154")) == (45, 42, 8)


@pytest.mark.parametrize("generation", [0, 1], ids=["before R575", "from R575"])
@pytest.mark.parametrize("rule", RULES, ids=[f"{r.code} {r.unit} {r.layouts[1][1]:x} {r.statuses}" for r in RULES])
def test_every_rule_is_found_by_its_own_registers(rule: NvlinkRule, generation: int) -> None:
    _, value = rule.layouts[generation]
    for unit in rule.unit.split("/"):
        found = decode_nvlink(rule.code, line(unit, value, rule.statuses[0] if rule.statuses else 0))
        assert found is not None
        assert (found.action, found.code) == (rule.action, rule.code)


def test_bits_that_do_not_count_change_nothing() -> None:
    before = decode_nvlink(145, line("RLW_RXPIPE", 0x0409A0C2, 0x8))
    assert before is not None
    assert (before.unit, before.action) == ("RLW_RXPIPE", "none")


def test_of_several_bits_the_worst_counts() -> None:
    both = decode_nvlink(144, line("SAW_MVB", 0x21, 0x1 | 0x2))
    assert both is not None
    assert both.action == "reset_gpu"


def test_a_unit_that_is_spelt_in_another_way_is_found_by_its_registers() -> None:
    found = decode_nvlink(144, line("SAW_MVB_NEW", 0x1, 0x2))
    assert found is not None
    assert found.unit == "SAW_MVB"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (144, "SAW_MVB Fatal XC0 i0 Link 00"),
        (144, line("SAW_MVB", 0x3FFFFFF, 0x1)),
        (144, line("SAW_MVB", 0x21, 0x40)),
        (79, line("SAW_MVB", 0x21, 0x1)),
        (144, ""),
        (144, "(0x21 0x1)" * 1000),
    ],
    ids=["no registers", "no such interrupt", "no such status", "another Xid", "nothing", "noise"],
)
def test_what_the_table_does_not_know_is_nothing(code: int, message: str) -> None:
    assert decode_nvlink(code, message) is None
