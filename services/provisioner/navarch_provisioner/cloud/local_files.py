"""The files of local machines: who each is, whether its process lives, and what to do with a file that cannot be read.

Everything about a machine stands in its `machine.json`, replaced in one step; a directory with a name that begins with
a dot is no machine (yet, or any more). All functions block: they belong into a thread.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import psutil
import structlog

from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import Upstream
from navarch_provisioner.cloud.processes import process_of

log = structlog.get_logger("navarch.provider.local")

ENDED_KEPT = 50
"""Directories of ended machines that are kept, for their logs: the newest."""
_FORGET_AFTER = timedelta(hours=1)
"""None is removed before: until then its token still means it."""
_KILLED_WITHIN_S = 2.0

Power = Literal["new", "on", "stopping", "off", "ending", "ended"]


class MachineFile(msgspec.Struct, frozen=True, kw_only=True):
    """`machine.json`: a machine's identity, fixed at launch, and how its latest boot stands."""

    instance_id: str
    request: LaunchRequest
    gpu_count: int
    launched_at: datetime
    power: Power = "new"
    """`stopping` and `ending` are intentions, written before the process is told: whoever finds them finishes them."""
    boots: int = 0
    boot_id: str = ""
    pid: int = 0
    started_at: float = 0.0
    """When that process started, seconds since 1970: the pid alone may be another's by now."""
    ended_at: datetime | None = None


class Process(msgspec.Struct, frozen=True):
    """What the file `alive` holds, for the case that `machine.json` cannot be read."""

    pid: int
    started_at: float


class Home:
    """One machine's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> MachineFile | None:
        """None where there is no machine. Raises `msgspec.DecodeError` for a damaged file, OSError."""
        try:
            return msgspec.json.decode((self.path / "machine.json").read_bytes(), type=MachineFile)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, machine: MachineFile) -> None:
        """Replaces the file in one step."""
        draft = self.path / f".machine.json.{os.getpid()}"
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(machine))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / "machine.json")

    def process(self, machine: MachineFile) -> psutil.Process | None:
        """The machine itself; None while it is off, or gone."""
        if machine.boots == 0:
            return None
        if process := process_of(machine.pid, machine.started_at):
            return process
        # A clock that was set moves all start times, and a whole fleet must not be taken for dead over that: the lock
        # that the machine keeps on its directory tells.
        try:
            return psutil.Process(machine.pid) if self.occupied() else None
        except psutil.NoSuchProcess:
            return None

    def try_lock(self) -> int | None:
        """A descriptor that holds the right to change this machine, until it is closed; None while another has it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def occupied(self) -> bool:
        """Whether a process has become this machine, or is about to."""
        try:
            descriptor = os.open(self.path / "alive", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


class Homes:
    """All machines of one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> Iterator[tuple[Home, MachineFile]]:
        """Every machine, ended ones too. Raises `Upstream` rather than leave one out."""
        try:
            names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return
        except OSError as error:
            raise Upstream(f"cannot list {self.root}: {error.strerror}") from error
        for name in names:
            if (found := self.at(self.root / name)) is not None:
                yield found

    def by_token(self, token: str) -> tuple[Home, MachineFile] | None:
        return next((found for found in self.all() if found[1].request.token == token), None)

    def by_node(self, node: str) -> tuple[Home, MachineFile] | None:
        """The node's latest machine."""
        return self.at(self.root / node)

    def by_id(self, instance_id: str) -> tuple[Home, MachineFile] | None:
        """A machine's directory is named after its node, or after itself once another took that name."""
        node = instance_id.rpartition(".")[0]
        if not node or "/" in instance_id or instance_id.startswith("."):
            return None
        for name in (node, instance_id):
            found = self.at(self.root / name)
            if found is not None and found[1].instance_id == instance_id:
                return found
        return None

    def draft(self, machine: MachineFile) -> Home:
        """A new machine's directory, under a name that does not count yet."""
        path = self.root / f".new-{machine.request.node}-{uuid.uuid4().hex[:8]}"
        path.mkdir(parents=True, mode=0o700)
        home = Home(path)
        home.write(machine)
        return home

    def occupied_drafts(self) -> bool:
        """Whether a process is about to become a new machine."""
        return any(Home(path).occupied() for path in self.root.glob(".new-*"))

    def make_room(self, home: Home, machine: MachineFile) -> None:
        """Lets an ended machine's node have another machine."""
        home.path.rename(self.root / machine.instance_id)

    def prune(self, now: datetime) -> None:
        """Removes what is left of launches that came to nothing, and of all but the newest ended machines."""
        ended = [(machine.ended_at, home) for home, machine in self.all() if machine.ended_at is not None]
        ended.sort(key=lambda entry: entry[0], reverse=True)
        for at, home in ended[ENDED_KEPT:]:
            if now - at > _FORGET_AFTER:
                remove(home.path)
        for path in self.root.glob(".[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if now.timestamp() - path.stat().st_mtime > _FORGET_AFTER.total_seconds():
                    remove(path)

    def at(self, path: Path) -> tuple[Home, MachineFile] | None:
        """The machine in a directory, if there is one. A damaged one is set aside. Raises `Upstream`."""
        home = Home(path)
        try:
            machine = home.read()
        except msgspec.DecodeError as error:
            self._set_aside(home, str(error))
            return None
        except OSError as error:
            raise Upstream(f"cannot read {path / 'machine.json'}: {error.strerror}") from error
        return None if machine is None else (home, machine)

    def _set_aside(self, home: Home, why: str) -> None:
        """A machine that cannot tell whose it is cannot be kept: nobody could ever end it. Its files stay, for a person
        to look at."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            noted = msgspec.json.decode((home.path / "alive").read_bytes(), type=Process)
            if process := process_of(noted.pid, noted.started_at):
                process.kill()
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(timeout=_KILLED_WITHIN_S)
        aside = self.root / f".damaged-{home.path.name}-{uuid.uuid4().hex[:8]}"
        try:
            home.path.rename(aside)
        except OSError as error:
            raise Upstream(f"{home.path}: machine.json cannot be read ({why}), nor be set aside: {error}") from error
        log.error("machine ended, its file was damaged", directory=str(home.path), why=why, kept_as=str(aside))


def remove(path: Path) -> None:
    """Under another name first, so that what is half removed is no machine."""
    doomed = path if path.name.startswith(".") else path.with_name(f".old-{path.name}-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        path.rename(doomed)
        shutil.rmtree(doomed)
