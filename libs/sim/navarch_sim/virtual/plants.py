"""Planted bugs: mistakes that people make in systems like this one, made again on purpose, in simulation alone.

A simulator that finds nothing proves nothing. Each plant takes one promise of the design away, and the seeds must show
that it is missed. A plant is a context: within it the product's own code runs with one piece replaced.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from msgspec import structs

from navarch_agent.outbox import Outbox
from navarch_common.bus.base import BusError, Delivery, PubAck
from navarch_common.bus.memory import MemoryServer
from navarch_common.bus.memory_stream import MemoryConsumer, MemoryStream
from navarch_common.ids import new_token
from navarch_common.model.node import NODE
from navarch_common.reconcile import Reconciler
from navarch_common.store.base import Committed, StoreError
from navarch_common.store.committer import Committer
from navarch_common.store.encoding import Bound, Prepared, split_value
from navarch_common.store.relay import Relay
from navarch_health.liveness import Patience
from navarch_health.observer import Observer
from navarch_health.reports import Reports
from navarch_health.settings import HealthSettings
from navarch_provisioner import calls
from navarch_provisioner.calls import CloudCalls
from navarch_provisioner.cloud.base import Upstream
from navarch_provisioner.intake import Intake
from navarch_provisioner.outcomes import Outcome
from navarch_sim.virtual.air import later
from navarch_sim.virtual.storage import SimStoreServer

Plant = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Planted:
    name: str
    mistake: int
    """Of the ten that were written down before the first line of code: 1 to 8 can be seen by a simulator."""
    text: str
    plant: Plant


@contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


# --- 1: trusting a lease for exactly-once calls ---


def _fresh_token() -> AbstractContextManager[object]:
    honest = CloudCalls._call

    async def call(self: CloudCalls, provider: Any, call: Any, record: Any, blank: Any) -> Outcome:
        if call == "launch":
            request = structs.replace(record.launch.request, token=new_token(self._deps.rng))
            record = structs.replace(record, launch=structs.replace(record.launch, request=request))
        return await honest(self, provider, call, record, blank)

    return _replaced(CloudCalls, "_call", call)


def _no_fence() -> AbstractContextManager[object]:
    honest = SimStoreServer.apply

    def apply(self: SimStoreServer, prepared: Prepared, bound: Bound) -> Committed:
        return honest(self, replace(prepared, commit=replace(prepared.commit, lease=None)), bound)

    return _replaced(SimStoreServer, "apply", apply)


# --- 2: acknowledging because a handler returned ---


def _ack_first() -> AbstractContextManager[object]:
    honest = Reports._handle

    async def handle(self: Reports, delivery: Delivery) -> None:
        await delivery.ack()
        await honest(self, delivery)

    return _replaced(Reports, "_handle", handle)


def _ack_after_failure() -> AbstractContextManager[object]:
    async def handle(self: Intake, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(self._patience_s * 0.8):
                await self._take(delivery)
        except (StoreError, TimeoutError, BusError):
            await delivery.ack()

    return _replaced(Intake, "_handle", handle)


# --- 3: taking a timeout for a failure ---


def _timeout_is_failure() -> AbstractContextManager[object]:
    def unknown(blank: Outcome, why: str) -> Outcome:
        return Outcome(blank.call, blank.node, blank.token, error=Upstream(why))

    return _replaced(calls, "_unknown", unknown)


# --- 4: durability as it comes out of the box ---

FORGOTTEN_S: Final = 2.0


def _store_forgets() -> AbstractContextManager[object]:
    """`appendfsync everysec`: an outage of the store takes the last moments with it."""
    honest = SimStoreServer.apply_from

    def apply_from(self: SimStoreServer, process: Any, prepared: Prepared, bound: Bound) -> Committed:
        now_s = asyncio.get_running_loop().time()
        if now_s - self.backed_up_s >= FORGOTTEN_S / 2:
            self.backups = [*self.backups[-2:], (now_s, self.backup())]
            self.backed_up_s = now_s
        return honest(self, process, prepared, bound)

    def back(self: SimStoreServer) -> None:
        now_s = asyncio.get_running_loop().time()
        if self.backups and now_s - self.backups[-1][0] < 60.0:
            self.roll_back(self.backups[0][1])
        self.up = True

    @contextmanager
    def both() -> Iterator[None]:
        with _replaced(SimStoreServer, "apply_from", apply_from), _replaced(SimStoreServer, "come_back", back):
            yield

    return both()


def _stream_forgets() -> AbstractContextManager[object]:
    """`sync_interval: 2m`: an outage of the bus takes acknowledged messages with it."""
    honest = MemoryServer.stop

    def stop(self: MemoryServer) -> None:
        horizon = self.clock.now() - timedelta(seconds=10)
        for stream in self.streams.values():
            for message in list(stream.select((), 0)):
                if message.stored_at > horizon:
                    stream.remove(message.sequence)
        honest(self)

    return _replaced(MemoryServer, "stop", stop)


# --- 5: silence is death ---


def _silence_is_death() -> AbstractContextManager[object]:
    def patience(self: HealthSettings) -> Patience:
        return Patience(heartbeat_timeout=self.heartbeat_timeout, silence_deadline=self.heartbeat_timeout)

    return _replaced(HealthSettings, "patience", property(patience))


def _never_deaf() -> AbstractContextManager[object]:
    @contextmanager
    def both() -> Iterator[None]:
        long_ago = property(lambda self: self._until - timedelta(days=1))
        with _replaced(Observer, "deaf", lambda *_: ""), _replaced(Observer, "heard_since", long_ago):
            yield

    return both()


# --- 6: two writes instead of one, and edges instead of levels ---


def _no_outbox() -> AbstractContextManager[object]:
    async def tell(self: Committer, committed: Committed, _: float) -> None:
        for entry in committed.entries:
            await self._store.outbox_done([entry.id])
            try:
                await self._publisher.publish(entry)
            except (BusError, StoreError):
                continue

    async def step(_: Relay) -> str:
        return ""

    @contextmanager
    def both() -> Iterator[None]:
        with _replaced(Committer, "_tell", tell), _replaced(Relay, "step", step):
            yield

    return both()


def _edges_only() -> AbstractContextManager[object]:
    """Whoever is told works; nobody looks by himself."""
    honest = Reconciler._pause

    async def pause(self: Reconciler, failures: int) -> None:
        if self.name.startswith("provisioner/") and not failures:
            await self._signal.wait()
            return
        await honest(self, failures)

    return _replaced(Reconciler, "_pause", pause)


# --- 7: records that vanish ---


def _records_expire() -> AbstractContextManager[object]:
    """A TTL on node records, which only a write renews."""
    honest = SimStoreServer.apply_from

    def apply_from(self: SimStoreServer, process: Any, prepared: Prepared, bound: Bound) -> Committed:
        committed = honest(self, process, prepared, bound)
        for key in prepared.commit.put:
            if key.family is NODE:
                later(60.0, expire, self, key, committed.revision)
        return committed

    def expire(self: SimStoreServer, key: Any, revision: int) -> None:
        value = self.contents.values.get(key.path)
        if value is not None and split_value(value).revision == revision:
            self._unindex(key)
            del self.contents.values[key.path]

    return _replaced(SimStoreServer, "apply_from", apply_from)


def _eviction() -> AbstractContextManager[object]:
    """`maxmemory-policy allkeys-lru`: now and then a record is gone, so that another fits."""
    honest = SimStoreServer.apply_from

    def apply_from(self: SimStoreServer, process: Any, prepared: Prepared, bound: Bound) -> Committed:
        committed = honest(self, process, prepared, bound)
        written = [key for key in prepared.commit.put if key.family is NODE]
        if committed.revision % 50 == 0 and not written:
            oldest = next((path for path in self.contents.values if path.startswith("node/")), None)
            if oldest is not None:
                self._unindex(NODE.key(oldest.removeprefix("node/")))
                del self.contents.values[oldest]
        return committed

    return _replaced(SimStoreServer, "apply_from", apply_from)


# --- 8: work that is dropped in silence ---


def _parked() -> AbstractContextManager[object]:
    """`max_deliver: 2`, and nobody hears the advisory."""
    honest = MemoryConsumer._come_again

    def come_again(self: MemoryConsumer, sequence: int) -> None:
        entry = self.outstanding.get(sequence)
        if entry is not None and entry.deliveries >= 2:
            self._release(sequence)
            return
        honest(self, sequence)

    return _replaced(MemoryConsumer, "_come_again", come_again)


def _oldest_dropped() -> AbstractContextManager[object]:
    """`discard: old` on the reports, which a small stream does all the time."""
    honest = MemoryStream.append

    def append(self: MemoryStream, subject: str, data: bytes, headers: Any) -> PubAck:
        acked = honest(self, subject, data, headers)
        if self.spec.retention == "work_queue":
            waiting = [message.sequence for message in self.select((), 0)]
            for sequence in waiting[:-2]:
                self.remove(sequence)
        return acked

    return _replaced(MemoryStream, "append", append)


def _errors_ignored() -> AbstractContextManager[object]:
    """A publish that failed is a publish: the client's errors go to a callback that nobody set."""
    honest = Outbox.publish

    async def publish(self: Outbox, entry: Any) -> None:
        try:
            await honest(self, entry)
        except BusError:
            return

    return _replaced(Outbox, "publish", publish)


PLANTS: Final[dict[str, Planted]] = {
    planted.name: planted
    for planted in (
        Planted("fresh-token", 1, "each launch call has a token of its own: only the lease keeps it from happening twice", _fresh_token),
        Planted("no-fence", 1, "commits are applied whoever holds the lease by now", _no_fence),
        Planted("ack-first", 2, "health acknowledges a report when it arrives", _ack_first),
        Planted("ack-after-failure", 2, "the provisioner acknowledges a report although it could not be kept", _ack_after_failure),
        Planted("timeout-is-failure", 3, "a launch without an answer counts as refused, and is made elsewhere", _timeout_is_failure),
        Planted("store-forgets", 4, "an outage of the store loses what was written just before", _store_forgets),
        Planted("stream-forgets", 4, "an outage of the bus loses what was acknowledged just before", _stream_forgets),
        Planted("silence-is-death", 5, "a node that is silent for one timeout has failed", _silence_is_death),
        Planted("never-deaf", 5, "health does not ask whether it was itself that did not hear", _never_deaf),
        Planted("no-outbox", 6, "events are published after the commit or never", _no_outbox),
        Planted("edges-only", 6, "the provisioner works when it is told to, and never looks by itself", _edges_only),
        Planted("records-expire", 7, "node records have a time to live", _records_expire),
        Planted("eviction", 7, "the store evicts records when it likes", _eviction),
        Planted("parked", 8, "a message that was delivered twice is never delivered again", _parked),
        Planted("oldest-dropped", 8, "the stream of reports drops its oldest", _oldest_dropped),
        Planted("errors-ignored", 8, "an agent takes a report for published whatever the bus said", _errors_ignored),
    )
}  # fmt: skip
"""By name."""
