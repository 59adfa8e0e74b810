"""The kernel lines of `tests/data/kmsg_samples.txt`, and what each means."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from navarch_common.xid import KernelFault

SAMPLES = Path(__file__).parents[1] / "data" / "kmsg_samples.txt"


class Sample(NamedTuple):
    text: str
    kind: str
    """`none` where the line tells of no fault."""
    code: int | None
    pci: str | None


def samples() -> list[Sample]:
    rows = []
    for line in SAMPLES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            text, kind, code, pci = line.split("\t")
            rows.append(Sample(text, kind, None if code == "-" else int(code), None if pci == "-" else pci))
    return rows


def meaning(fault: KernelFault | None) -> tuple[str, int | None, str | None]:
    """A parsed line as the file says it."""
    return ("none", None, None) if fault is None else (fault.kind, fault.code, fault.pci)
