"""Stands in for `journalctl`: plays the records of a file, from after a cursor on, and follows it.

`journal` is that file, one record a line as `-o json` prints it; what is no record is printed as it stands. A line
`!die STATUS TEXT` ends the process there, once: it is taken out of the file first. What it was called with is appended
to `journal.calls`, its own id to `journal.pids`.
"""

import os
import re
import sys
import time
from pathlib import Path

journal = Path(os.environ["FAKE_JOURNAL"])
arguments = sys.argv[1:]
for suffix, said in (("calls", " ".join(arguments)), ("pids", str(os.getpid()))):
    with journal.with_suffix(f".{suffix}").open("a") as file:
        file.write(f"{said}\n")


def lines() -> list[bytes]:
    return journal.read_bytes().split(b"\n")[:-1]


def tell(line: bytes) -> None:
    if line.startswith(b"!die "):
        _, status, text = line.decode().split(" ", 2)
        rest = [other for other in lines() if other != line]
        journal.with_suffix(".next").write_bytes(b"".join(other + b"\n" for other in rest))
        journal.with_suffix(".next").replace(journal)
        sys.stderr.write(text + "\n")
        sys.exit(int(status))
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if "--follow" not in arguments:
    for line in lines()[-1:]:
        tell(line)
    sys.exit(0)
told = 0
for argument in arguments:
    if argument.startswith("--after-cursor="):
        cursor = argument.partition("=")[2].encode()
        if not re.fullmatch(rb"s=[0-9a-f]+;i=[0-9a-f]+;b=[0-9a-f]+;m=[0-9a-f]+;t=[0-9a-f]+;x=[0-9a-f]+", cursor):
            sys.exit("Failed to seek to cursor: Invalid argument")
        told = next((place for place, line in enumerate(lines(), start=1) if cursor in line), 0)
while True:
    for line in lines()[told:]:
        told += 1
        tell(line)
    time.sleep(0.005)
