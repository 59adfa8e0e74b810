"""One kernel line in, one `KernelFault` out, or `None` where the line tells of no fault that we know.

Lines come in many dresses: raw `/dev/kmsg` records, three forms of dmesg, syslog, journald. The prefix is taken off
first and every pattern is matched at the start of what is left, because text that an unprivileged user chooses (a
cgroup's name in an oom-kill line) must not pass for a message of the driver.
"""

from __future__ import annotations

import re

import msgspec

from navarch_common.xid.kinds import PATTERNS, SIGNS
from navarch_common.xid.pci import PCI_PATTERN, normalize_pci

LINE_BYTES_MAX = 8192
"""A longer line is cut here. The kernel's own records end well below (about 1 KiB of text)."""


class KernelFault(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What one kernel line says. A field is None where the line doesn't say it."""

    kind: str
    """`xid`, `sxid`, `sxid_detail` (a second row of the same SXid: not a fault of its own), or one of `kinds.KINDS`."""
    message: str
    """The line without its prefix; for Xid and SXid what follows the code. Control characters are escaped."""
    code: int | None = None
    pci: str | None = None
    """Lower-case `dddd:bb:dd`; of the device that is at fault, not of the port that reported it."""
    gpu_instance: int | None = None
    """MIG: the GPU instance that the driver blames."""
    compute_instance: int | None = None
    pid: int | None = None
    process_name: str | None = None
    """The kernel's short name of the process (15 bytes, chosen by its user: show it, decide nothing on it)."""
    previous_xid: int | None = None
    """The Xid that the driver names as the cause of this one (45 mostly)."""
    recovery_action: int | None = None
    """Xid 154's new value: 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset, 5 recover IMEX domain."""
    reset_required: bool | None = None
    """Xid 94 and 95: the word after `RST:`."""
    drain_and_reset_required: bool | None = None
    """Xid 94 and 95: the word after `D-RST:`."""
    fatal: bool | None = None
    """The printed word Fatal or Non-fatal (SXid, and Xid 144 to 150). Trust it before any table."""
    link: int | None = None
    """NVLink number, where the line names one; the driver prints -1 for none, which is None here."""
    uuid: str | None = None
    serial: str | None = None
    truncated: bool = False
    """The line was longer than `LINE_BYTES_MAX` and was cut."""


_PREFIX = re.compile(
    "|".join((
        r"\d{1,5},\d{1,20},\d{1,20},[^;\s]{0,64};",  # raw kmsg: priority, sequence, microseconds, flags
        r"<\d{1,4}>",  # printk level
        r"\w{2,10}\s*:\w{2,10}\s*: ",  # dmesg --decode: facility and level
        r"\[\s*\d{1,12}\.\d{1,9}\]",  # seconds since boot
        r"\[\s*[TC]\d{1,10}\]",  # the printing task or CPU (CONFIG_PRINTK_CALLER)
        r"\[\w{3} \w{3} {1,2}\d{1,2} [\d:]{8} \d{4}\]",  # dmesg -T
        r"\d{4}-\d\d-\d\dT[\d:.,]{8,18}(?:Z|[+-]\d\d:?\d\d)?(?=\s)",  # ISO time
        r"\w{3} [ \d]\d [\d:]{8} \S{1,255}(?= \S{1,64}: )",  # syslog: time and host
        r"(?:\S{1,255} )?(?:kernel|systemd-networkd)(?:\[\d{1,10}\])?:(?=\s)",  # [host and] tag
    ))
)  # fmt: skip
_PREFIXES_MAX = 8

_SIGN = re.compile("|".join(map(re.escape, SIGNS)))
_XID = re.compile(
    rf"NVRM: Xid \((?:PCI:)?(?P<pci>{PCI_PATTERN})(?:\s+GPU-I:(?P<gi>\d{{1,4}}))?(?:\s+GPU-CI:(?P<ci>\d{{1,4}}))?\):"
    r"\s*(?P<code>\d{1,5})\b,?\s*(?P<rest>.*)\Z",
    re.DOTALL,
)
_SXID = re.compile(
    rf"nvidia-nvswitch\d{{1,4}}: SXid \(PCI:(?P<pci>{PCI_PATTERN})\):\s*(?P<code>\d{{5}}),\s*(?P<rest>.*)\Z", re.DOTALL
)
_ANYWHERE = re.compile(r"NVRM: Xid \(|nvidia-nvswitch\d{1,4}: SXid \(")
_SXID_DETAIL = re.compile(r"Severity \d|Data \{")
_PROCESS = re.compile(r"pid=(?:'[^']*'|(?P<pid>\d{1,10}))(?:, name=(?P<name><unknown>|.{0,15}?))?(?:, (?P<rest>.*))?\Z")
_PREVIOUS = re.compile(r"\bcaused by previous Xid (\d{1,5})\s*\Z")
_RESET_FLAGS = re.compile(r"\bRST: (Yes|No), D-RST: (Yes|No)")
_RECOVERY = re.compile(r"recovery action changed from 0x[0-9A-Fa-f]{1,8} \([^()]*\) to 0x([0-9A-Fa-f]{1,8})")
_SXID_WORD = re.compile(r"(Fatal|Non-fatal),\s*(?:Link (-?\d{1,4})\b)?")
_NVLINK5_WORD = re.compile(r"[A-Z][A-Za-z0-9_/]*\s+(Fatal|Nonfatal)\s+XC[01]\s+i[01]\s+Link\s+(-?\d{1,4})\b")
_NVLINK_ERROR = re.compile(r"NVLink: .*\blink (\d{1,4})\(")


def parse_line(line: str, *, anywhere: bool = False) -> KernelFault | None:
    """Return what `line` says, or None where it tells of no fault.

    With `anywhere`, an Xid or SXid is also found behind a prefix that we don't know (a person decodes a log of some
    other tool); what an agent acts on is parsed without.
    """
    if not _SIGN.search(line, 0, LINE_BYTES_MAX):
        return None
    text, truncated = _bounded(line)
    text = strip_prefix(text)
    fault = _parse(text)
    if fault is None and anywhere:
        start = _ANYWHERE.search(text)
        fault = _parse(text[start.start() :]) if start else None
    if fault is not None and truncated:
        return msgspec.structs.replace(fault, truncated=True)
    return fault


def strip_prefix(text: str) -> str:
    """Take off time, level, host and tag, in whatever order a log put them."""
    for _ in range(_PREFIXES_MAX):
        match = _PREFIX.match(text)
        if match is None:
            break
        text = text[match.end() :].lstrip(" ")
    return text


def escape_control(text: str) -> str:
    """Write what a terminal would obey, or not show, as `\\x1b` or `\\u202e`; the rest stays."""
    if text.isprintable():
        return text
    text = text.translate(_ESCAPES)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_ESCAPES = {code: _escaped(chr(code)) for code in range(0x100) if not chr(code).isprintable()}
"""What a log has of them, as a rule. The rest of Unicode takes ten times as long."""


def _bounded(line: str) -> tuple[str, bool]:
    """Return `line` escaped and cut, and whether it was cut: before escaping, which may make it longer, and after."""
    line = line.rstrip("\r\n")
    raw = line.encode("utf-8", "backslashreplace") if len(line) * 4 > LINE_BYTES_MAX else b""
    cut = len(raw) > LINE_BYTES_MAX
    text = escape_control(raw[:LINE_BYTES_MAX].decode("utf-8", "ignore") if cut else line)
    return text[:LINE_BYTES_MAX], cut or len(text) > LINE_BYTES_MAX


def _parse(text: str) -> KernelFault | None:
    if text.startswith("NVRM: Xid"):
        return _parse_xid(text)
    if text.startswith("nvidia-nvswitch"):
        return _parse_sxid(text)
    for kind, pattern in PATTERNS:
        if match := pattern.match(text):
            return _other(kind, text, match.groupdict())
    return None


def _parse_xid(text: str) -> KernelFault | None:
    match = _XID.match(text)
    if match is None:
        return None
    message = rest = match["rest"].strip()
    pid = name = None
    if process := _PROCESS.match(rest):
        pid, name = process["pid"], process["name"]
        message = process["rest"] or ""
    code = int(match["code"])
    fault = KernelFault(
        kind="xid",
        message=message,
        code=code,
        pci=normalize_pci(match["pci"]),
        gpu_instance=_number(match["gi"]),
        compute_instance=_number(match["ci"]),
        pid=_number(pid),
        process_name=None if name in (None, "", "<unknown>") else name,
    )
    return msgspec.structs.replace(fault, **_xid_words(code, message))


def _xid_words(code: int, message: str) -> dict[str, int | bool | None]:
    """Read what the driver says in words: its verdict, its flags, what caused it, which link."""
    words: dict[str, int | bool | None] = {}
    if found := _PREVIOUS.search(message):
        words["previous_xid"] = int(found[1])
    if code in (94, 95) and (found := _RESET_FLAGS.search(message)):
        words["reset_required"] = found[1] == "Yes"
        words["drain_and_reset_required"] = found[2] == "Yes"
    elif code == 154 and (found := _RECOVERY.search(message)):
        words["recovery_action"] = int(found[1], 16)
    elif code == 74 and (found := _NVLINK_ERROR.match(message)):
        words["link"] = int(found[1])
    elif 144 <= code <= 150 and (found := _NVLINK5_WORD.match(message)):
        words["fatal"] = found[1] == "Fatal"
        words["link"] = _link(found[2])
    return words


def _parse_sxid(text: str) -> KernelFault | None:
    match = _SXID.match(text)
    if match is None:
        return None
    rest = match["rest"].strip()
    pci, code = normalize_pci(match["pci"]), int(match["code"])
    if _SXID_DETAIL.match(rest):
        return KernelFault(kind="sxid_detail", message=rest, code=code, pci=pci)
    word = _SXID_WORD.match(rest)
    return KernelFault(
        kind="sxid",
        message=rest,
        code=code,
        pci=pci,
        fatal=None if word is None else word[1] == "Fatal",
        link=None if word is None else _link(word[2]),
    )


def _other(kind: str, text: str, found: dict[str, str | None]) -> KernelFault:
    pci = found.get("pci")
    return KernelFault(
        kind=kind,
        message=text,
        pci=None if pci is None else normalize_pci(pci),
        pid=_number(found.get("pid")),
        process_name=found.get("name"),
        uuid=found.get("uuid"),
        serial=found.get("serial"),
    )


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _link(digits: str | None) -> int | None:
    return None if digits is None or int(digits) < 0 else int(digits)
