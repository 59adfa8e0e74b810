"""How fast kernel lines are read: the parser over a day's log and over faults alone, beside one bare pattern.

The ceiling is a single compiled pattern, searched in the same lines: what a `grep` for faults would take in Python. The
worst line is the slowest of those that were made to be slow.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.report import Figure
from navarch_common.xid import Decoder, parse_line

SAMPLES = Path(__file__).parents[1] / "tests" / "data" / "kmsg_samples.txt"
ORDINARY = (
    "[{t:.6f}] docker0: port {n}(veth{n:x}) entered forwarding state",
    "[{t:.6f}] IPv6: ADDRCONF(NETDEV_CHANGE): veth{n:x}: link becomes ready",
    '[{t:.6f}] audit: type=1400 audit(1700000000.{n}:42): apparmor="STATUS" operation="profile_load" pid={n}',
    "[{t:.6f}] systemd[1]: Started session-{n}.scope - Session {n} of User root.",
    "[{t:.6f}] nvidia-uvm: Loaded the UVM driver, major device number {n}.",
    "[{t:.6f}] TCP: request_sock_TCP: Possible SYN flooding on port {n}. Sending cookies.",
    "[{t:.6f}] perf: interrupt took too long ({n} > 2500), lowering kernel.perf_event_max_sample_rate",
)
_XID = "NVRM: Xid (PCI:0000:07:00): "
HOSTILE = {
    "prefixes": "NVRM: Xid (PCI:" * 600,
    "parentheses": "NVRM: Xid (PCI:0000:07:00" + "(" * 8000,
    "control characters": "NVRM: Xid (" + "\x01" * 8000,
    "directions": "NVRM: Xid (" + "\u202e" * 2700,
    "quotes": _XID + "79, pid=" + "'" * 8000,
    "commas": _XID + "79, pid=1, name=" + ", " * 4000,
    "a cause, spaces": _XID + "45, caused by previous Xid 1" + " " * 8000 + "x",
    "links": _XID + "74, NVLink: " + "link 1 " * 1100,
    "a unit of spaces": _XID + "144, A" + " " * 8000 + "x",
    "recovery actions": _XID + "154, " + "recovery action changed from 0x1 (" * 240,
    "SXid words": "nvidia-nvswitch0: SXid (PCI:0000:07:00.0): 20034, " + "Fatal, Link " * 600,
    "a bracket, spaces": "[" + " " * 8000 + "NVRM:",
    "tags": "kernel: " * 1000 + "NVRM: Xid (",
    "AER errors": "pcieport 0000:00:03.0: AER: " + "error " * 1300,
    "I/O errors": "EXT4-fs " + "I/O erro " * 900 + "I/O error.",
    "an array of colons": "md/raid" + ":" * 8000 + " I/O error",
    "a task of colons": "INFO: task " + ":1" * 4000 + " blocked for more than ",
    "64 KiB of digits": "9" * 65_536 + "NVRM:",
    "64 KiB of spaces": " " * 65_536 + "NVRM:",
}
"""Lines of which some pattern reads as much as it can before it gives up."""
COUNT, DAYS, ROUNDS = 20_000, 2, 5
_BARE = re.compile(
    r"NVRM|nvswitch|Bus Error|AER|EDAC|Hardware Error|lockup|blocked for|oom-kill|Out of memory|I/O|read-only|mlx5|DPC"
)


async def run() -> list[Figure]:
    faults = samples()
    rng = random.Random(1)
    day = faults * DAYS
    day += [rng.choice(ORDINARY).format(t=turn / 7, n=rng.randrange(60_000)) for turn in range(COUNT - len(day))]
    rng.shuffle(day)
    return [
        _figure("a day's log", day, f"{len(faults) * DAYS / COUNT:.1%} of the lines are faults"),
        _figure("faults alone", faults * (COUNT // len(faults)), f"{len(faults)} different lines"),
        _worst("the worst line", parse_line),
        _worst("the worst line, decoded", lambda line: Decoder().line(line)),
    ]


def samples() -> list[str]:
    """The sample lines, of which nearly all tell of a fault."""
    rows = SAMPLES.read_text(encoding="utf-8").splitlines()
    return [row.split("\t")[0] for row in rows if row and not row.startswith("#")]


def _worst(what: str, read: Callable[[str], object]) -> Figure:
    took, name = max((_took_s([line], read), name) for name, line in HOSTILE.items())
    note = f"{name}, of {len(HOSTILE)} made to be slow"
    return Figure(bench="lines", what=what, value=took * 1e3, unit="ms", goal="< 1 ms", note=note)


def _figure(what: str, lines: Sequence[str], note: str) -> Figure:
    bare = min(_timed(lambda: [_BARE.search(line) for line in lines]) for _ in range(ROUNDS))
    return Figure(
        bench="lines", what=what, value=len(lines) / _took_s(lines), unit="lines/s", ceiling=len(lines) / bare,
        better="more", note=note,
    )  # fmt: skip


def _took_s(lines: Sequence[str], read: Callable[[str], object] = parse_line) -> float:
    return min(_timed(lambda: [read(line) for line in lines]) for _ in range(ROUNDS))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
