"""How fast kernel lines are read: the parser over a day's log and over faults alone, beside one bare pattern.

The ceiling is a single compiled pattern, searched in the same lines: what a `grep` for faults would take in Python. The
worst line is the slowest of those that were made to be slow.
"""

import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import Figure
from navarch_common.xid import parse_line

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
HOSTILE = (
    "NVRM: Xid (PCI:" * 600,
    "NVRM: Xid (PCI:0000:07:00): 79, pid=" + "'" * 8000,
    "NVRM: Xid (PCI:0000:07:00): 154, recovery action changed from 0x" + "(" * 8000,
    "nvidia-nvswitch0: SXid (PCI:0000:07:00.0): 20034, " + "Fatal, Link " * 600,
    "[" + " " * 8000,
    "EXT4-fs " + "I/O erro " * 900,
    "9" * 65_536,
    "INFO: task " + ":1" * 4000,
)
COUNT, SHARE_OF_FAULTS, ROUNDS = 20_000, 0.01, 5
_BARE = re.compile(
    r"NVRM|nvswitch|Bus Error|AER|EDAC|Hardware Error|lockup|blocked for|oom-kill|Out of memory|I/O|read-only|mlx5|DPC"
)


async def run() -> list[Figure]:
    faults = [line.split("\t")[0] for line in SAMPLES.read_text().splitlines() if line and not line.startswith("#")]
    rng = random.Random(1)
    day = [
        rng.choice(faults)
        if rng.random() < SHARE_OF_FAULTS
        else rng.choice(ORDINARY).format(t=turn / 7, n=rng.randrange(60_000))
        for turn in range(COUNT)
    ]
    worst = max(_took_s([line]) for line in HOSTILE)
    return [
        _figure("a day's log", day, f"{SHARE_OF_FAULTS:.0%} of the lines are faults"),
        _figure("faults alone", faults * (COUNT // len(faults)), f"{len(faults)} different lines"),
        Figure(
            bench="lines", what="the worst line", value=worst * 1e3, unit="ms", goal="< 1 ms", note="made to be slow"
        ),
    ]


def _figure(what: str, lines: Sequence[str], note: str) -> Figure:
    bare = min(_timed(lambda: [_BARE.search(line) for line in lines]) for _ in range(ROUNDS))
    return Figure(
        bench="lines", what=what, value=len(lines) / _took_s(lines), unit="lines/s", ceiling=len(lines) / bare,
        better="more", note=note,
    )  # fmt: skip


def _took_s(lines: Sequence[str]) -> float:
    return min(_timed(lambda: [parse_line(line) for line in lines]) for _ in range(ROUNDS))


def _timed(work: object) -> float:
    assert callable(work)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
