"""Becomes a local machine: `python local_boot.py DIRECTORY HOME BOOT_ID LOCK_DESCRIPTOR PROGRAM ARGUMENT…`.

Runs alone, as a script and without our packages, between the one who asks for a machine and the agent that it becomes.
It alone makes the steps that must hold together, so that whoever asked may be killed between any two lines:

- The lock on `alive` is taken first and kept by the agent: no directory ever has two machines.
- The directory then says which process it is, under the pid that the agent will have.
- A new machine's directory gets its name last. From there on the machine exists; before, there was nothing.
"""

import contextlib
import fcntl
import json
import os
import sys

import psutil

ALREADY_RUNS = 75
NAME_TAKEN = 73
NO_AGENT = 127


def main() -> None:
    directory, home, boot_id, lock, *program = sys.argv[1:]
    if not os.access(program[0], os.X_OK):
        sys.exit(NO_AGENT)
    os.chdir(directory)
    alive = os.open("alive", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(ALREADY_RUNS)
    with open("machine.json", encoding="utf-8") as file:  # noqa: PTH123 no Path needed, and quick
        machine = json.load(file)
    process = {"pid": os.getpid(), "started_at": psutil.Process().create_time()}
    os.ftruncate(alive, 0)
    os.pwrite(alive, json.dumps(process).encode(), 0)
    if machine["boots"]:
        with contextlib.suppress(FileNotFoundError):
            os.replace("kmsg", "kmsg.old")  # noqa: PTH105 a new boot's kernel log begins empty
    os.close(os.open("kmsg", os.O_WRONLY | os.O_CREAT, 0o600))
    write("pid", f"{os.getpid()}\n")
    machine |= process | {"power": "on", "boot_id": boot_id, "boots": machine["boots"] + 1}
    write("machine.json", json.dumps(machine))
    if directory != home:
        try:
            os.rename(directory, home)  # noqa: PTH104
        except OSError:  # The name is taken: by the same launch, asked for twice, or by another.
            sys.exit(NAME_TAKEN)
        sync_directory(os.path.dirname(home))  # noqa: PTH120
    os.set_inheritable(alive, True)
    if int(lock) >= 0:
        os.set_inheritable(int(lock), False)
    os.execv(program[0], program)  # noqa: S606 an argument list, no shell


def write(name: str, text: str) -> None:
    """Write a file that is seen whole or not at all, whatever is cut off."""
    descriptor = os.open(f".{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(f".{name}.new", name)  # noqa: PTH105


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main()
