"""What heartbeats say of the work on a node, and since when they have said so. Pure, but for what it remembers."""

from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from navarch_common.events import BadMessage, decode
from navarch_common.events.messages import Heartbeat
from navarch_common.model.gpu import GpuSample, is_idle
from navarch_common.model.node import NodeRecord
from navarch_common.store.base import Beat
from navarch_provisioner.view import Work


class Lateness:
    """How late heartbeats came, by those that came soonest. A node's clock may be wrong, but it is wrong alike for each: what one
    took longer from there to here than the others, it was on its way, or waited in a process that stood still."""

    LATELY = 16
    """So many heartbeats back. A clock that is set back makes as many of them look late, and no more."""

    MOST = timedelta(hours=1)
    """Older is as good as never heard, whatever year a clock said before."""

    def __init__(self) -> None:
        self._took: dict[str, tuple[str, deque[timedelta]]] = {}

    def of(self, heartbeat: Heartbeat, heard_at: datetime) -> timedelta:
        boot, took = self._took.get(heartbeat.node, ("", deque[timedelta]()))
        if boot != heartbeat.boot_id:
            took = deque[timedelta](maxlen=self.LATELY)
            self._took[heartbeat.node] = heartbeat.boot_id, took
        at = heartbeat.at if heartbeat.at.tzinfo else heartbeat.at.replace(tzinfo=UTC)
        took.append(heard_at - at)
        return min(took[-1] - min(took), self.MOST)

    def keep(self, nodes: Collection[str]) -> None:
        """Forgets all others."""
        for node in self._took.keys() - nodes:
            del self._took[node]


def work_of(beat: Beat | None, record: NodeRecord, lateness: Lateness) -> Work:
    """What the last heartbeat said. One of another generation is another machine's, and says nothing."""
    if beat is None:
        return Work(text="no heartbeat was heard")
    try:
        heartbeat: Heartbeat = decode(beat.sample, Heartbeat)
    except BadMessage as error:
        return Work(text=f"its last heartbeat cannot be read: {error}"[:200])
    if heartbeat.generation != record.generation or heartbeat.node != record.node:
        return Work(text=f"its last heartbeat is of generation {heartbeat.generation}")
    return Work(
        idle=is_idle(heartbeat.gpus),
        at=beat.at - lateness.of(heartbeat, beat.at),
        text=describe(heartbeat.gpus),
        driver_state=heartbeat.driver_state,
        boot_id=heartbeat.boot_id,
    )


def describe(gpus: tuple[GpuSample, ...]) -> str:
    """`GPUs 0-3 have 1 process each, GPU 5 has 2 processes`; empty where no GPU has any."""
    busy = _runs([(gpu.index, gpu.process_count) for gpu in gpus if gpu.process_count])
    parts = [_said(first, last, count) for first, last, count in busy[:8]]
    if len(busy) > 8:
        parts.append(f"and {sum(last - first + 1 for first, last, _ in busy[8:])} more")
    unread = [str(gpu.index) for gpu in gpus if gpu.process_count is None]
    if unread:
        parts.append(f"GPU {', '.join(unread[:8])} cannot be read")
    return ", ".join(parts)


def _runs(busy: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours with as many processes, as first and last index and that count."""
    runs: list[tuple[int, int, int]] = []
    for index, count in sorted(busy):
        if runs and runs[-1][1:] == (index - 1, count):
            runs[-1] = (runs[-1][0], index, count)
        else:
            runs.append((index, index, count))
    return runs


def _said(first: int, last: int, count: int) -> str:
    processes = f"{count} process{'es' if count != 1 else ''}"
    return f"GPU {first} has {processes}" if first == last else f"GPUs {first}-{last} have {processes} each"


class IdleWatch:
    """Since when every heartbeat that was looked at said idle. It forgets on a restart and starts again from nothing."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._last: dict[str, datetime] = {}

    def since(self, node: str, work: Work, now: datetime, fresh: timedelta) -> datetime | None:
        """Notes what was heard, and returns since when the node is idle without a break, or None."""
        if not work.idle or work.at is None or now - work.at > fresh:
            self.forget(node)
            return None
        last = self._last.get(node)
        if last is None or work.at - last > 2 * fresh:
            # A gap this long may have held work that nobody saw.
            self._since[node] = work.at
        self._last[node] = work.at
        return self._since[node]

    def forget(self, node: str) -> None:
        self._since.pop(node, None)
        self._last.pop(node, None)

    def keep(self, nodes: set[str]) -> None:
        """Forgets all others."""
        for node in set(self._last) - nodes:
            self.forget(node)
