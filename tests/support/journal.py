"""A journal for tests: records as `journalctl -o json` prints them, and a `journalctl` on PATH that plays them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

BOOT = "278a6e1cf35f459e8d8db11bbdbb60b1"
MISSED = "e9bf28e6e834481bb6f48f548ad13606"
PROGRAM = Path(__file__).parent / "journalctl.py"


def cursor(number: int, *, boot: str = BOOT) -> str:
    what = f"b={boot};m={0x78CF2003 + number:x};t=6618a933b8f38;x={0x62755A99E86C600D + number:016x}"
    return f"s=4621dc0716de4feb8561f261e3a0e619;i={number:x};{what}"


def entry(number: int, message: Any, *, boot: str = BOOT, **more: Any) -> dict[str, Any]:
    """A kernel's line, printed `number` milliseconds after the boot. A field that is None is left out."""
    fields = {
        "_MACHINE_ID": "3d1219c7c4c5404aaa1f6d2a48adfda4",
        "_HOSTNAME": "gpu-17",
        "_BOOT_ID": boot,
        "_TRANSPORT": "kernel",
        "_SOURCE_MONOTONIC_TIMESTAMP": str(number * 1000),
        "__MONOTONIC_TIMESTAMP": str(2_026_840_067 + number),
        "__REALTIME_TIMESTAMP": "1796097663799096",
        "__CURSOR": cursor(number, boot=boot),
        "SYSLOG_FACILITY": "0",
        "SYSLOG_IDENTIFIER": "kernel",
        "PRIORITY": "4",
        "MESSAGE": message,
    }
    return {name: value for name, value in {**fields, **more}.items() if value is not None}


class Journal:
    """What journald wrote, in a file that the stand-in for journalctl plays."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = directory / "journal"
        self.path.touch()
        self._next = 1
        programs = directory / "bin"
        programs.mkdir()
        (programs / "journalctl").write_text(f"#!{sys.executable} -IS\n{PROGRAM.read_text()}")
        (programs / "journalctl").chmod(0o755)
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("FAKE_JOURNAL", str(self.path))

    def printk(self, message: Any, **more: Any) -> dict[str, Any]:
        """Let the kernel print a line; fields may be added, changed, and with None left out."""
        fields = entry(self._next, message, **more)
        self._next += 1
        self.append(json.dumps(fields).encode())
        return fields

    def append(self, line: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(line + b"\n")

    def calls(self) -> list[str]:
        """The arguments of each journalctl that follows, so far."""
        return [call for call in self._lines("calls") if "--follow" in call]

    def pids(self) -> list[int]:
        return [int(line) for line in self._lines("pids")]

    def _lines(self, suffix: str) -> list[str]:
        path = self.path.with_suffix(f".{suffix}")
        return path.read_text().splitlines() if path.exists() else []
