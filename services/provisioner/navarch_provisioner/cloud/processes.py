"""Processes that outlive us, and how they are known again: by pid and by when they started."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_CLOCK_STEP_S = 2.0
"""Start times are counted from a boot time that moves a little when the clock is set."""
_LOG_BYTES_MAX = 10_000_000
_INHERITED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV"})
_INHERITED_PREFIXES = ("LC_", "PYTHON", "OTEL_")


def process_of(pid: int, started_at: float) -> psutil.Process | None:
    """The living process that got this pid at that time; None where it is gone, or only its remains are there."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - started_at) > _CLOCK_STEP_S:
            return None
        return process
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError):  # Another user's is not what we started.
        return None


def command_of(script: str, module: str) -> list[str]:
    """How to run another distribution's program: by its script beside our own Python, or as a module."""
    path = Path(sys.executable).with_name(script)
    return [str(path)] if os.access(path, os.X_OK) else [sys.executable, "-m", module]


def inherited_environment() -> dict[str, str]:
    """What such a process gets of our environment: our own secrets are none of its business."""
    return {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def start_apart(
    arguments: Sequence[str], environment: Mapping[str, str], log_file: Path, *, keep_open: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Starts a process in the directory of its log file and in a session of its own: neither Ctrl-C on our terminal nor
    our end is its business. Raises OSError."""
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES_MAX:
        log_file.replace(log_file.with_name(f"{log_file.name}.old"))
    with log_file.open("ab") as output:
        return subprocess.Popen(
            arguments,
            env=environment, cwd=log_file.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, pass_fds=keep_open,
        )  # fmt: skip
