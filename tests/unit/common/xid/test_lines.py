"""Kernel lines: every sample parses as its file says, in every dress, and text that a user chose forges nothing."""

from __future__ import annotations

import re
from re import _constants, _parser  # type: ignore[attr-defined]  # what a pattern is made of, nobody else tells
from typing import Any

import pytest

from navarch_common.xid import KernelFault, lines, normalize_pci, parse_line
from navarch_common.xid.kinds import KINDS, PATTERNS, SIGNS
from navarch_common.xid.lines import LINE_BYTES_MAX
from support.kmsg_samples import meaning, samples

LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def parsed(line: str) -> KernelFault:
    fault = parse_line(line)
    assert fault is not None, line
    return fault


def test_all_ninety_five_samples_are_there() -> None:
    assert len(samples()) == 95


@pytest.mark.parametrize(("text", "kind", "code", "pci"), samples())
def test_a_sample_parses_as_its_file_says(text: str, kind: str, code: int | None, pci: str | None) -> None:
    fault = parse_line(text)
    assert meaning(fault) == (kind, code, pci)
    assert fault is None or fault.kind in KINDS


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "4,1234,99887766,-;",
        "4,1234,99887766,-,caller=T1946;",
        "<4>",
        "<4>[  12.345678] ",
        "[6781741.548779] ",
        "[ 130.456250] [ T1946] ",
        "[   12.000001][    C3] ",
        "[Sun Dec  1 14:54:40 2024] ",
        "kern  :warn  : 2025-01-21T04:41:44,283302+00:00 ",
        "kern  :err   : [  100.000000] ",
        "Oct 16 20:47:19 gpu-17 kernel: ",
        "Oct  6 20:47:19 gpu-17 kernel: [  17.982092] ",
        "2026-01-05T18:28:55.123456+00:00 gpu-17 kernel: ",
        "kernel: ",
    ],
)
def test_a_prefix_changes_nothing(prefix: str) -> None:
    assert parsed(prefix + LOST) == parsed(LOST)
    assert parsed(LOST).code == 79


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        (LOST, "pid", None),
        (LOST, "process_name", None),
        (LOST, "message", "GPU has fallen off the bus."),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=7, name=ray::WorkerDict, Ch 00000020", "process_name", "ray::WorkerDict"),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=7, name=a,b[c], Ch 00000020", "process_name", "a,b[c]"),
        ("NVRM: Xid (PCI:0000:01:00): 43, pid=7, name=a,b[c], Ch 00000020", "message", "Ch 00000020"),
        ("NVRM: Xid (PCI:0000:01:00): 94, pid=7194, Contained: X. RST: No, D-RST: No", "pid", 7194),
        ("NVRM: Xid (PCI:0000:01:00): 95, pid=5171, Uncontained: FBHUB. RST: Yes, D-RST: No", "reset_required", True),
        ("NVRM: Xid (PCI:0000:01:00): 94, X. RST: No, D-RST: Yes", "drain_and_reset_required", True),
        ("NVRM: Xid (PCI:0000:01:00): 45, pid=1, name=p, Ch 1 caused by previous Xid 149", "previous_xid", 149),
        ("NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:02): 94, pid=1, X", "gpu_instance", 5),
        ("NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:02): 94, pid=1, X", "compute_instance", 2),
        (
            "NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x4 (Drain and Reset) to 0x0 (None)",
            "recovery_action",
            0,
        ),
        ("NVRM: Xid (PCI:0018:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0)", "fatal", True),
        ("NVRM: Xid (PCI:0018:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0)", "link", None),
        ("NVRM: Xid (PCI:0018:01:00): 145, pid=8, name=a, b, RLW_X Nonfatal XC0 i0 Link 13 (0x1)", "pid", 8),
        ("NVRM: Xid (PCI:0003:00:00): 74, NVLink: fatal error detected on link 14(0x0, 0x0)", "link", 14),
        ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress (First)", "fatal", False),
        ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress (First)", "link", 32),
        ("NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d", "uuid",
         "GPU-509665ad-b600-ac93-3616-d754b23d636d"),
        ("NVRM: GPU Board Serial Number: 1650124014249", "serial", "1650124014249"),
        ("NVRM: Xid (PCI:0000:3B:00): 79, X", "pci", "0000:3b:00"),
        ("NVRM: Xid (PCI:0000:3b:00.0): 79, X", "pci", "0000:3b:00"),
        ("NVRM: Xid (PCI:0001ffff:3b:00): 79, X", "pci", "1ffff:3b:00"),
        ("NVRM: Xid (PCI:0000:3b:00): 4711, from a driver of tomorrow", "code", 4711),
        ("NVRM: Xid (PCI:0000:3b:00): 79", "message", ""),
    ],
)  # fmt: skip
def test_a_field_of_the_line_is_read(line: str, field: str, value: object) -> None:
    assert getattr(parsed(line), field) == value


@pytest.mark.parametrize(
    "line",
    [
        "",
        "NVRM: Xid (PCI:0000:3b:00) 79",
        "NVRM: Xid (PCI:zzzz:3b:00): 79, X",
        f"oom_memcg=/user.slice/{LOST}",
        f"audit: comm={LOST}",
        f"python3[77]: {LOST}",
        f"Oct 16 20:47:19 gpu-17 python3[77]: {LOST}",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.133.20",
    ],
)
def test_a_line_that_is_no_fault_is_none(line: str) -> None:
    assert parse_line(line) is None


def test_a_name_chosen_by_a_user_does_not_become_an_xid() -> None:
    fault = parsed(f"oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/user.slice/{LOST},task=x,pid=1,uid=1000")
    assert fault.kind == "oom_kill"
    assert fault.code is None


def test_a_person_may_decode_an_xid_behind_an_unknown_prefix() -> None:
    line = '{"log":"' + LOST
    assert parse_line(line) is None
    fault = parse_line(line, anywhere=True)
    assert fault is not None
    assert fault.code == 79


def test_an_overlong_line_is_cut_and_says_so() -> None:
    fault = parsed(LOST + "x" * 20_000)
    assert fault.truncated
    assert len(fault.message.encode()) < LINE_BYTES_MAX
    assert not parsed(LOST).truncated


def test_control_characters_are_escaped() -> None:
    fault = parsed(LOST + " \x1b[31mred\x00\u202e\x85")
    assert fault.message.endswith(" \\x1b[31mred\\x00\\u202e\\x85")
    assert fault.message.isprintable()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("00000000:3B:00.0", "0000:3b:00"),
        ("0000:3b:00", "0000:3b:00"),
        ("00000008:01:00.0", "0008:01:00"),
        ("00010000:01:00.0", "10000:01:00"),
        ("3b:00.0", None),
        ("0000:3b:00\n; rm", None),
    ],
)
def test_a_pci_address_is_padded_and_never_cut(address: str, expected: str | None) -> None:
    assert normalize_pci(address) == expected


@pytest.mark.parametrize(
    "line", ["[" * 9000, "NVRM: Xid (PCI:" + "0" * 9000, "EXT4-fs " * 1000, "a " * 4000, "\x00" * 100]
)
def test_hostile_text_is_refused_quickly(line: str) -> None:
    assert parse_line(line, anywhere=True) is None


def _words(pattern: re.Pattern[str]) -> list[list[str]]:
    """What a match must contain: for each way through the pattern, the runs of plain characters on it."""
    ways = [[""]]
    for token, given in _parser.parse(pattern.pattern, pattern.flags):
        if token is _constants.LITERAL:
            ways = [[*runs[:-1], runs[-1] + chr(given)] for runs in ways]
        elif token is _constants.SUBPATTERN and given[3] and given[3][0][0] is _constants.BRANCH:
            alternatives = given[3][0][1][1]
            ways = [[*runs, *_plain(one), ""] for runs in ways for one in alternatives]
        else:
            ways = [[*runs, ""] for runs in ways]
    return ways


def _plain(tokens: Any) -> list[str]:
    runs = [""]
    for token, given in tokens:
        runs = [*runs[:-1], runs[-1] + chr(given)] if token is _constants.LITERAL else [*runs, ""]
    return runs


@pytest.mark.parametrize(("kind", "pattern"), [*PATTERNS, ("xid", lines._XID), ("sxid", lines._SXID)])
def test_no_line_that_tells_of_a_fault_is_without_one_of_the_signs(kind: str, pattern: re.Pattern[str]) -> None:
    for runs in _words(pattern):
        assert any(sign in run for run in runs for sign in SIGNS), f"{kind}: none of the signs is in {runs}"
