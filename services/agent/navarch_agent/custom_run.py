"""Finds and runs operators' own checks: the executables of a directory. Blocks; `custom_watch` waits beside it.

Each check runs in a process group of its own with a deadline, and is killed as a whole. A directory or a file that others
than its owner may write to is not run: the agent is root where it matters.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Final

from navarch_agent.custom_checks import CHECKS_MAX, BadOutput, Finding, read_output

DEADLINE_S: Final = 30.0
OUTPUT_BYTES_MAX: Final = 65_536
_NAME_MAX: Final = 48


class CheckDirectory:
    """The checks of one machine."""

    def __init__(self, directory: Path, deadline_s: float = DEADLINE_S) -> None:
        self._directory, self._deadline_s = directory, deadline_s

    def find(self) -> dict[str, Path]:
        """The checks by name. Raises `OSError`, and `BadOutput` where none of them can be trusted."""
        if why := _unsafe(self._directory):
            raise BadOutput(f"{self._directory} {why}")
        files = sorted(path for path in self._directory.iterdir() if path.is_file() and os.access(path, os.X_OK))
        if len(files) > CHECKS_MAX:
            raise BadOutput(f"{self._directory} has {len(files)} checks: expected at most {CHECKS_MAX}")
        checks: dict[str, Path] = {}
        for path in files:
            if (twin := checks.setdefault(_name(path), path)) is not path:
                raise BadOutput(f"{twin.name} and {path.name} are both called {_name(path)}")
        return checks

    def run(self, path: Path) -> tuple[Finding, ...]:
        """Run one to its end. Raises `OSError` and `BadOutput`."""
        if why := _unsafe(path):
            raise BadOutput(f"{path} {why}")
        return read_output(*run_check(path, self._deadline_s))


def run_check(path: Path, deadline_s: float) -> tuple[int, str]:
    """Run a check to its end; return its exit code and what it printed. Blocks for `deadline_s` at most.

    Raises `OSError` where it cannot be run, `BadOutput` where it does not end in time or prints too much.
    """
    child = subprocess.Popen(
        [path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert child.stdout is not None
    give_up_at = time.monotonic() + deadline_s
    output = bytearray()
    try:
        while select.select([child.stdout], [], [], max(give_up_at - time.monotonic(), 0.0))[0]:
            if not (chunk := os.read(child.stdout.fileno(), 8192)):
                code = child.wait(timeout=max(give_up_at - time.monotonic(), 0.0))
                return code, output.decode("utf-8", "replace")
            output += chunk
            if len(output) > OUTPUT_BYTES_MAX:
                raise BadOutput(f"it printed more than {OUTPUT_BYTES_MAX} bytes")
        raise BadOutput(f"it did not end within {deadline_s:g} s")
    except subprocess.TimeoutExpired:
        raise BadOutput(f"it did not end within {deadline_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits in the kernel is left to it
            child.wait(timeout=1.0)


def _name(path: Path) -> str:
    """A check's name, as the code that policies see: its file's, without what follows the first dot."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in path.name.partition(".")[0].lower())
    return kept[:_NAME_MAX].strip("-") or "check"


def _unsafe(path: Path) -> str:
    """Why it must not be run, after whose it is and who may write to it; empty where it may. Raises `OSError`."""
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to user {found.st_uid}: expected root or the agent's own"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written to by others (mode {stat.S_IMODE(found.st_mode):o}): expected `chmod go-w`"
    return ""
