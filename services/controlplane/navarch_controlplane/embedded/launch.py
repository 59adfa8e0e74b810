"""Becomes a server that dies with its parent: `python launch.py PARENT_PID PROGRAM ARGUMENT…`.

Runs alone, as a script and without our packages, because it must be quick and because setting this up between fork and
exec of a process with threads is not safe. The kernel sends the signal when the *thread* that forked us ends, so the
parent forks from its main thread.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        # KILL and not TERM: a stopped or hung server must go too, and what it acknowledged is on disk already.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # The parent died before we asked to be told.
        sys.exit(0)
    os.execv(program, sys.argv[2:])  # noqa: S606 an argument list, no shell


if __name__ == "__main__":
    main()
