"""Lines made to break the parser: whatever they hold, none raises, and none is read more than a fixed number of times.

How long a line takes is printed by `python -m bench lines`. Here is what keeps it in bounds: no pattern is given more
than `LINE_BYTES_MAX` characters, and none is built so that reading n of them can take n times n steps.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # what a pattern is made of
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_common.xid import Decoder, KernelFault, kinds, lines, nvlink5, parse_line, pci
from navarch_common.xid.kinds import KINDS, PATTERNS, SIGNS
from navarch_common.xid.lines import LINE_BYTES_MAX
from support.kmsg_samples import samples

XID = "NVRM: Xid (PCI:0000:07:00): "
SAMPLES = [sample.text for sample in samples()]
HEADS = (
    "",
    "NVRM: Xid (",
    *(f"{XID}{code}, " for code in (13, 45, 74, 79, 94, 144, 149, 154)),
    f"{XID}31, pid=1, name=",
    f"{XID}31, pid='",
    "nvidia-nvswitch0: SXid (PCI:0000:07:00.0): 20034, ",
    "mlx5_core 0000:07:00.0: ",
    "INFO: task ",
    "<4>[  1.2] ",
    "4,1,2,-;",
    "Oct 16 20:47:19 gpu-17 kernel: ",
    *SIGNS,
)
"""With one of these in front garbage gets past the first search, and as deep into the parser as can be."""
HOSTILE = {
    "prefixes": "NVRM: Xid (PCI:" * 600,
    "prefixes behind another": "x " + "NVRM: Xid (PCI:" * 600,
    "nested parentheses": "NVRM: Xid (PCI:0000:07:00" + "(" * 30_000 + ")" * 30_000,
    "64 KiB of digits": "NVRM: Xid (PCI:0000:07:00): " + "9" * 65_536,
    "64 KiB of digits before a sign": "9" * 65_536 + XID + "79",
    "64 KiB of spaces": XID + " " * 65_536 + "79",
    "64 KiB of spaces before a sign": " " * 65_536 + XID + "79",
    "a megabyte": XID + "79, " + "x" * 1_000_000,
    "control characters": XID + "79, " + "\x00\x1b" * 30_000,
    "wide characters": XID + "79, " + "\U0001f525" * 30_000,
    "half a pair": XID + "79, " + "\ud83d" * 30_000,
    "tags": "kernel: " * 9000 + XID + "79",
    "quotes": XID + "79, pid=" + "'" * 30_000,
    "recovery actions": XID + "154, " + "recovery action changed from 0x1 (" * 2000,
    "a unit of spaces": XID + "144, A" + " " * 30_000 + "x",
    "a code of nine digits": XID + "123456789, said no driver",
    "registers of nobody": XID + "147, NOBODY Fatal XC0 i0 Link 00 (0xffffffff 0xffffffff)",
}
GARBAGE = st.text(st.characters(), max_size=300) | st.text("NVRM: Xid(PC0123abf.,'=\x1b\n)", max_size=300)


def check(line: str) -> None:
    """It is read without an error, and what comes out is fit to be sent and shown."""
    for fault in (parse_line(line), parse_line(line, anywhere=True)):
        if fault is not None:
            assert fault.kind in KINDS
            assert fault.message.isprintable()
            assert len(fault.message) <= LINE_BYTES_MAX
            assert fault.code is None or 0 <= fault.code <= 99_999
            assert msgspec.json.decode(msgspec.json.encode(fault), type=KernelFault) == fault
    found = Decoder().line(line)
    assert (found is None) == (parse_line(line, anywhere=True) is None)


@given(st.sampled_from(HEADS), GARBAGE)
@settings(max_examples=500, deadline=None)
def test_no_garbage_raises(head: str, garbage: str) -> None:
    check(head + garbage)


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 12), GARBAGE | st.sampled_from(SAMPLES)), max_size=4),
)
@settings(max_examples=500, deadline=None)
def test_no_sample_that_was_tampered_with_raises(line: str, edits: list[tuple[int, int, str]]) -> None:
    for at, left_out, put_in in edits:
        line = line[:at] + put_in + line[at + left_out :]
    check(line)


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_a_line_made_to_be_slow_is_read(line: str) -> None:
    check(line)


class Spy:
    """A pattern that remembers how many characters it was given at most."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.given = 0

    def match(self, text: str) -> re.Match[str] | None:
        self.given = max(self.given, len(text))
        return self._pattern.match(text)

    def search(self, text: str, begin: int = 0, end: int = 2**31) -> re.Match[str] | None:
        self.given = max(self.given, min(len(text), end))
        return self._pattern.search(text, begin, end)


def patterns_of(module: ModuleType) -> dict[str, re.Pattern[str]]:
    return {name: value for name, value in vars(module).items() if isinstance(value, re.Pattern)}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_given_more_than_the_limit(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spies = {name: Spy(pattern) for name, pattern in patterns_of(lines).items()}
    for name, spy in spies.items():
        monkeypatch.setattr(lines, name, spy)
    others = [(kind, Spy(pattern)) for kind, pattern in PATTERNS]
    monkeypatch.setattr(lines, "PATTERNS", others)
    escaped: list[int] = []
    escape = lines.escape_control
    monkeypatch.setattr(lines, "escape_control", lambda text: escaped.append(len(text)) or escape(text))
    parse_line(line, anywhere=True)
    assert max(escaped, default=0) <= LINE_BYTES_MAX
    assert spies["_SIGN"].given > 0
    for name, spy in [*spies.items(), *others]:
        assert spy.given <= LINE_BYTES_MAX, f"{name} was given {spy.given} characters"


class Item(NamedTuple):
    """A piece of a way through a pattern."""

    reads: frozenset[str]
    """Which of ASCII's characters it can read; none of a place such as `\\b`."""
    endless: bool = False
    certain: bool = False
    """It reads at least one character."""
    apart: bool = False
    """A look behind: it ends what comes before at one place."""
    whole: bool = False
    """What is left of the line, whatever it is: it cannot fail."""


REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
ASCII = frozenset(map(chr, range(128)))
EVERY = {
    **{f"lines.{name}": pattern for name, pattern in patterns_of(lines).items()},
    **{f"nvlink5.{name}": pattern for name, pattern in patterns_of(nvlink5).items()},
    **{f"pci.{name}": pattern for name, pattern in patterns_of(pci).items()},
    **{f"kinds.{kind}-{number}": pattern for number, (kind, pattern) in enumerate(PATTERNS)},
}


def reads(token: Any, state: Any, flags: int) -> frozenset[str]:
    """The characters that one token, which reads one character, can read."""
    one = _compiler.compile(_parser.SubPattern(state, [token]), flags)
    return frozenset(char for char in ASCII if one.fullmatch(char))


def ways(tokens: Any, flags: int, state: Any) -> Iterator[list[Item]]:
    """Every way through a pattern, piece by piece: one for each alternative, with and without what is optional."""
    yield from ([item for part in way for item in part] for way in product(*_parts(list(tokens), flags, state)))


def _parts(tokens: Sequence[Any], flags: int, state: Any) -> Iterator[list[list[Item]]]:
    for index, token in enumerate(tokens):
        kind, given_ = token
        if kind is _constants.SUBPATTERN:
            yield list(ways(given_[3], flags, state))
        elif kind is _constants.BRANCH:
            yield [way for branch in given_[1] for way in ways(branch, flags, state)]
        elif kind in REPEATS and (given_[1] == 1 or len(given_[2]) > 1):
            yield [*ways(given_[2], flags, state), *([[]] if given_[0] == 0 else [])]
        elif kind in REPEATS:
            fewest, most, inner = given_
            endless = most is _constants.MAXREPEAT
            yield [[Item(reads(inner[0], state, flags), endless=endless, certain=fewest > 0)]]
        elif kind in (_constants.ASSERT, _constants.ASSERT_NOT):
            yield [[Item(frozenset(), apart=given_[0] < 0)]]
        elif kind is _constants.AT:
            yield [[Item(frozenset(), whole=given_ is _constants.AT_END_STRING and index == len(tokens) - 1)]]
        else:
            yield [[Item(reads(token, state, flags), certain=True)]]


def every_way(pattern: re.Pattern[str]) -> Iterable[list[Item]]:
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    return ways(parsed, pattern.flags, parsed.state)


def nested(tokens: Any, inside: bool = False) -> bool:
    """Whether something that may be repeated holds something that may be repeated."""
    for kind, given_ in tokens:
        if kind in REPEATS:
            fewest, most, inner = given_
            varies = most != fewest and most > 1
            if (varies and inside) or nested(inner, inside or most > 1):
                return True
        elif kind is _constants.SUBPATTERN:
            if nested(given_[3], inside):
                return True
        elif kind is _constants.BRANCH and any(nested(branch, inside) for branch in given_[1]):
            return True
    return False


def unbounded_twice(way: list[Item]) -> bool:
    """Whether two endless pieces can share out the same characters between them, in as many ways as there are."""
    for index, first in enumerate(way):
        for after, item in enumerate(way[index + 1 :], start=index + 1) if first.endless else ():
            if item.apart or (item.certain and not item.reads & first.reads):
                break
            takes_all = item.reads >= ASCII and after + 1 < len(way) and way[after + 1].whole
            if item.endless and item.reads & first.reads and not takes_all:
                return True
    return False


def starts_over(way: list[Item]) -> bool:
    """Whether an endless piece can read over the beginning of the next place where a search would try."""
    return any(
        item.endless and not any(one.certain and not one.reads & item.reads for one in way[:index])
        for index, item in enumerate(way)
    )


@pytest.mark.parametrize("pattern", EVERY.values(), ids=EVERY)
def test_no_pattern_repeats_what_repeats(pattern: re.Pattern[str]) -> None:
    assert not nested(_parser.parse(pattern.pattern, pattern.flags))


@pytest.mark.parametrize("pattern", EVERY.values(), ids=EVERY)
def test_no_two_endless_pieces_of_a_pattern_meet(pattern: re.Pattern[str]) -> None:
    assert not any(unbounded_twice(way) for way in every_way(pattern))


def test_what_is_searched_for_does_not_read_on_over_its_own_beginning() -> None:
    searched = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (lines, kinds, nvlink5, pci)
        for name in re.findall(r"\b(\w+)\.search\(", inspect.getsource(module))
    }
    assert "lines._SIGN" in searched
    assert searched <= set(EVERY)
    for name in sorted(searched):
        assert not any(starts_over(way) for way in every_way(EVERY[name])), name


@pytest.mark.parametrize(
    ("text", "is_nested", "meet", "over"),
    [
        (r"a(?:b+)*c", True, False, False),
        (r"(?:\S+ )+c", True, False, True),
        (r"a(?:b{2})*c", False, False, False),
        (r"[A-Z][A-Z ]*?\s+Fatal", False, True, True),
        (r"[A-Z][A-Z ]*?(?<! )\s+Fatal", False, False, True),
        (r"x.*a.*b", False, True, True),
        (r"x\w*:.*b", False, False, True),
        (r"from \([^)]*\) to", False, False, True),
        (r"from \([^()]*\) to", False, False, False),
        (r"[A-Z]+\s+Fatal\s+X", False, False, True),
        (r"\w+\s*\w+X", False, True, True),
        (r"(?s)x\s*.*\Z", False, False, True),
        (r"x\s*.*\Z", False, True, True),
    ],
)
def test_the_rules_for_patterns_tell_good_from_bad(text: str, is_nested: bool, meet: bool, over: bool) -> None:
    pattern = re.compile(text)
    assert nested(_parser.parse(text)) == is_nested
    assert any(unbounded_twice(way) for way in every_way(pattern)) == meet
    assert any(starts_over(way) for way in every_way(pattern)) == over
