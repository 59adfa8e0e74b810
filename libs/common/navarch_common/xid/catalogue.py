"""What a code means: its name, how bad it is, and what NVIDIA advises.

The tables lie beside this module (`data/xid.csv`, `data/sxid.csv`), merged from NVIDIA's published Xid catalogue, the
open kernel driver's headers and the fabric manager's guide; the column `notes_source` says which. A code that is in
neither has the severity `unclassified`: it is shown, counted and never repaired on its own.
"""

from __future__ import annotations

import csv
from enum import StrEnum
from functools import cache
from importlib import resources

import msgspec


class Severity(StrEnum):
    """How bad a code is by the catalogue alone, before anything that the driver said in words."""

    INFO = "info"
    WARNING = "warning"
    RECOVERABLE = "recoverable"
    FATAL = "fatal"
    UNCLASSIFIED = "unclassified"


class CatalogueEntry(msgspec.Struct, frozen=True):
    """One code of the driver (Xid) or of the NVSwitch driver (SXid)."""

    code: int
    name: str
    severity: Severity
    action: str
    """NVIDIA's immediate action in one word, as `restart_app` or `reset_gpu`; `none` where nothing is to be done."""
    notes: str = ""
    """Where the entry comes from, and what other tools make of the code."""


def xid_entry(code: int) -> CatalogueEntry:
    """Return what Xid `code` means; an unlisted one is `unclassified`."""
    return _table("xid.csv").get(code) or _unclassified("Xid", code)


def sxid_entry(code: int) -> CatalogueEntry:
    """Return what SXid `code` means; an unlisted one is `unclassified`."""
    return _table("sxid.csv").get(code) or _unclassified("SXid", code)


def xids() -> tuple[CatalogueEntry, ...]:
    """Return every listed Xid, by rising code."""
    return _sorted("xid.csv")


def sxids() -> tuple[CatalogueEntry, ...]:
    """Return every listed SXid, by rising code."""
    return _sorted("sxid.csv")


def _sorted(name: str) -> tuple[CatalogueEntry, ...]:
    return tuple(sorted(_table(name).values(), key=lambda entry: entry.code))


def _unclassified(family: str, code: int) -> CatalogueEntry:
    return CatalogueEntry(code, f"unlisted {family}", Severity.UNCLASSIFIED, "none")


@cache
def _table(name: str) -> dict[int, CatalogueEntry]:
    text = (resources.files("navarch_common.xid") / "data" / name).read_text(encoding="utf-8")
    rows = csv.reader(text.splitlines())
    next(rows)
    return {int(row[0]): _entry(row) for row in rows if row}


def _entry(row: list[str]) -> CatalogueEntry:
    code, name, severity, action, notes = row
    return CatalogueEntry(int(code), name, Severity(severity), action, notes)
