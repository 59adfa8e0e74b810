"""What NVLink 5 errors mean (Xid 144 to 150): the driver prints registers, and a table says what they ask for.

The table (`data/xid_nvlink5.csv`) is NVIDIA's published decoding, one rule for each unit, kind of interrupt and bit of the
error status. The first register is the interrupt's; from driver R575 on its unit lies in other bits than before. Both
layouts are tried, since a log does not say which driver wrote it: within one Xid no rule of one layout overlaps a rule of
the other that asks for something else.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

XIDS = range(144, 151)
Action = Literal["none", "reset_gpu", "follow_xid154"]

# A unit does not end with a space: without saying so, a run of n spaces is read n times from each of its spaces.
_LINE = re.compile(
    r"(?P<unit>[A-Z][A-Za-z0-9_/ ]*?)(?<! )\s+(?:Fatal|Nonfatal)\s+XC[01]\s+i[01]\s+Link\s+-?\d{1,4}\s*"
    r"\((?P<intr>0x[0-9A-Fa-f]{1,8})\s+(?P<status>0x[0-9A-Fa-f]{1,8})\b"
)
_ACTIONS: dict[str, Action] = {"IGNORE": "none", "XID_154_EVAL": "follow_xid154", "RESET_GPU": "reset_gpu"}
_WORST = list(_ACTIONS.values())


class NvlinkRule(msgspec.Struct, frozen=True):
    """What one row of the table says."""

    code: int
    unit: str
    """As the driver prints it; before and after a slash the two names that one unit has had."""
    layouts: tuple[tuple[int, int], ...]
    """Of the interrupt's register, which bits count, and what they are: before R575 and from it on."""
    statuses: tuple[int, ...]
    """Of the error status; empty where any will do."""
    action: Action
    investigate: str
    """What NVIDIA asks to be looked into, in its own word: `contact_support`, `investigate_link_si`; or `ignore`."""
    severity: str
    """In NVIDIA's own words: `Non-fatal`, `Fatal`, `Link Fatal`."""


def decode_nvlink(code: int, message: str) -> NvlinkRule | None:
    """What an Xid's registers ask for; the worst where several bits are set. None where the table has nothing of them, or
    `message` (the line behind its code) shows none."""
    found = _LINE.match(message)
    if found is None or code not in XIDS:
        return None
    interrupt, status = int(found["intr"], 16), int(found["status"], 16)
    rules = [rule for rule in nvlink_rules(code) if any(interrupt & mask == value for mask, value in rule.layouts)]
    units = set(found["unit"].split("/"))
    rules = [rule for rule in rules if units & set(rule.unit.split("/"))] or rules
    exact = [rule for rule in rules if not rule.statuses or status in rule.statuses]
    some = [rule for rule in rules if any(status & bits == bits for bits in rule.statuses if bits)]
    return max(exact or some, key=lambda rule: _WORST.index(rule.action), default=None)


def nvlink_rules(code: int) -> tuple[NvlinkRule, ...]:
    """The rules of one Xid, in the table's order."""
    return tuple(rule for rule in _rules() if rule.code == code)


@cache
def _rules() -> tuple[NvlinkRule, ...]:
    text = (resources.files("navarch_common.xid") / "data" / "xid_nvlink5.csv").read_text(encoding="utf-8")
    rows = csv.reader(text.splitlines())
    next(rows)
    return tuple(_rule(row) for row in rows if row)


def _rule(row: list[str]) -> NvlinkRule:
    code, unit, before, since, statuses, action, investigate, severity, _ = row
    return NvlinkRule(
        code=int(code),
        unit=unit,
        layouts=(_bits(before), _bits(since)),
        statuses=tuple(int(status, 16) for status in statuses.split("/") if status),
        action=_ACTIONS[action],
        investigate=investigate.lower(),
        severity=severity.rstrip("*?"),
    )


def _bits(pattern: str) -> tuple[int, int]:
    """Which bits of a pattern count, and what they are: the highest comes first, `-` counts for nothing."""
    mask = int("".join("0" if bit == "-" else "1" for bit in pattern), 2)
    return mask, int(pattern.replace("-", "0"), 2)
