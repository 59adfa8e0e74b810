"""An observation in the words that conditions use: `event`, `entity`, `node`, `gpu`, `history`.

The agent's words win; what it did not say is read from the driver's own message (the recovery action of Xid 154, the
printed Fatal or Non-fatal, the reset flags) and from the catalogue.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from navarch_common.events.messages import Observation
from navarch_common.model.gpu import Gpu
from navarch_common.model.health import Episode, HealthRecord
from navarch_common.model.node import NodeRecord
from navarch_common.xid.catalogue import CatalogueEntry, sxid_entry, xid_entry
from navarch_common.xid.decoding import meaning
from navarch_common.xid.lines import KernelFault, parse_line
from navarch_health.policy import Facts

READINGS: Final = frozenset({"thermal", "power"})
"""Event types that are readings of a polled check. One bad reading may be chance; facts act at once."""
DRIVER_VERDICT: Final = "xid-154"
"""The driver's own word on what a GPU needs. It takes it back by itself."""

ENDED: Final = "ended"
"""The measurement by which an agent says that it follows a condition: false while it lasts, true once it is over."""

_OF_A_KIND: Final = frozenset(
    {"kernel", "driver_error", "memory", "nvlink", "pcie", "clocks", "fabric", "host", "check"}
)
"""Event types that say in `kind` what happened: the code is that."""
_INT64: Final = 2**63 - 1
_WORDS: Final = {
    "recovery_action": "recovery_action",
    "reset_required": "reset_required",
    "drain_and_reset_required": "drain_and_reset_required",
    "fatal": "fatal",
    "link_id": "link",
    "previous_xid": "previous_xid",
}
"""What conditions call the driver's words, and where the parser of kernel lines has them."""
_NOT_A_CODE: Final = re.compile(r"[^a-z0-9._-]")


class Subject(Struct, frozen=True, kw_only=True):
    """What an observation is about."""

    entity: str
    """`gpu:<uuid or pci>`, `switch:<pci>`, `device:<pci>` or `node`."""
    code: str
    """`xid-79`, `sxid-20034`, `thermal`, or what kind of line or condition it is, as `gpu_lost`."""
    gpu: Gpu | None = None
    """The GPU of the node's inventory, where one matches."""
    catalogue: CatalogueEntry | None = None
    """What the catalogue says of an Xid or SXid, `unclassified` where it says nothing."""
    lasting: bool = False
    """A condition that the agent follows: it says itself when it is over."""

    @property
    def verdict_key(self) -> str:
        """Under which the record keeps the verdict. What can be taken back has a place of its own, so that it hides
        nothing when it stands and uncovers what else there is when it goes."""
        apart = self.lasting or self.code == DRIVER_VERDICT or self.code in READINGS
        return f"{self.entity}/{self.code}" if apart else self.entity


def subject_of(observation: Observation, gpus: tuple[Gpu, ...]) -> Subject:
    """What `observation` is about. An unknown PCI address is an entity like any other: it is judged all the same."""
    gpu = _find(observation, gpus)
    number = _number(observation)
    if observation.event_type == "xid" and number is not None:
        return Subject(entity=_gpu_entity(observation, gpu), code=f"xid-{number}", gpu=gpu, catalogue=xid_entry(number))
    if observation.event_type == "sxid" and number is not None:
        entity = f"switch:{observation.pci}" if observation.pci else "node"
        return Subject(entity=entity, code=f"sxid-{number}", catalogue=sxid_entry(number))
    code = _kind(observation) if observation.event_type in _OF_A_KIND else observation.event_type
    if observation.event_type == "kernel" and gpu is None and observation.pci:
        entity = f"device:{observation.pci}"
    else:
        entity = _gpu_entity(observation, gpu)
    return Subject(entity=entity, code=code, gpu=gpu, lasting=ENDED in observation.metrics)


def _kind(observation: Observation) -> str:
    """The kind that it names, as a code; its event type where it names none."""
    said = str(observation.metrics.get("kind", observation.event_type)).lower()
    return _NOT_A_CODE.sub("-", said)[:64].lstrip("._-") or observation.event_type


def facts_of(
    observation: Observation,
    subject: Subject,
    node: NodeRecord,
    record: HealthRecord,
    episodes: tuple[Episode, ...],
) -> Facts:
    """`episodes` are those of this entity and code, this observation's included."""
    entry, registration = subject.catalogue, node.registration
    fault = None if entry is None else _driver_words(observation, entry.code)
    name, severity, advice = ("", "", "") if entry is None else (entry.name, str(entry.severity), entry.action)
    if fault is not None:
        name, severity, advice = meaning(fault)
    return Facts(
        event={
            "timestamp": _rfc3339(observation.at),
            "gpu_index": observation.gpu_index if subject.gpu is None else subject.gpu.index,
            "gpu_uuid": observation.gpu_uuid if subject.gpu is None else subject.gpu.uuid,
            "system": observation.system or "DCGM_HEALTH_WATCH_UNKNOWN",
            "event_type": observation.event_type,
            "message": observation.message,
            "metrics": _metrics(observation, entry, fault),
            "code": subject.code,
            "pci": observation.pci,
            "gpu_instance": observation.gpu_instance,
            "source": observation.source,
            "injected": observation.injected,
            "name": name,
            "severity": str(severity),
            "advice": advice,
        },
        entity={"id": subject.entity, "kind": subject.entity.partition(":")[0], "known": subject.gpu is not None},
        node={
            "id": node.node,
            "pool": node.pool,
            "generation": node.generation,
            "phase": str(node.phase),
            "health": str(record.status),
            "labels": node.labels,
            "provider": "" if node.instance is None else node.instance.provider,
            "region": "" if node.instance is None else node.instance.region,
            "instance_type": "" if node.instance is None else node.instance.instance_type,
            "driver": "" if registration is None else registration.driver,
            "gpu_count": 0 if registration is None else len(registration.gpus),
        },
        gpu=_gpu_words(subject.gpu),
        history={
            "episodes": sum({e.boot_id: e.count for e in episodes}.values()),
            "lines": sum(e.lines for e in episodes),
            "codes": sorted({e.code for e in record.episodes if e.entity == subject.entity}),
        },
        episodes=episodes,
    )


def _metrics(observation: Observation, entry: CatalogueEntry | None, fault: KernelFault | None) -> dict[str, Any]:
    metrics = {name: _bounded(value) for name, value in observation.metrics.items()}
    if entry is None:
        return metrics
    metrics[f"{observation.event_type}_code"] = entry.code
    for name, field in _WORDS.items() if fault is not None else ():
        if (value := getattr(fault, field)) is not None:
            metrics.setdefault(name, value)
    return metrics


def _driver_words(observation: Observation, code: int) -> KernelFault | None:
    """Reads the driver's message again, whether the agent sent the whole line or what follows the code."""
    text = observation.message
    if "NVRM: Xid (" in text or ": SXid (" in text:
        return parse_line(text, anywhere=True)
    head = "NVRM: Xid" if observation.event_type == "xid" else "nvidia-nvswitch0: SXid"
    return parse_line(f"{head} (PCI:0000:00:00): {code}, {text}")


def _number(observation: Observation) -> int | None:
    if observation.code is not None:
        return observation.code
    said = observation.metrics.get(f"{observation.event_type}_code")
    if isinstance(said, str) and said.isdecimal() and len(said) <= 7:
        return int(said)
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= 10_000_000 else None


def _find(observation: Observation, gpus: tuple[Gpu, ...]) -> Gpu | None:
    """By what is most certain: the chip, the slot, then the driver's index."""
    for gpu in gpus:
        if observation.gpu_uuid and gpu.uuid == observation.gpu_uuid:
            return gpu
    for gpu in gpus:
        if observation.pci and gpu.pci == observation.pci:
            return gpu
    if observation.pci or observation.gpu_uuid or observation.gpu_index < 0:
        return None
    return next((gpu for gpu in gpus if gpu.index == observation.gpu_index), None)


def _gpu_entity(observation: Observation, gpu: Gpu | None) -> str:
    if gpu is not None:
        return f"gpu:{gpu.uuid or gpu.pci or gpu.index}"[:200]
    name = observation.gpu_uuid or observation.pci
    if name:
        return f"gpu:{name}"[:200]
    return f"gpu:{observation.gpu_index}" if observation.gpu_index >= 0 else "node"


def _gpu_words(gpu: Gpu | None) -> dict[str, Any]:
    if gpu is None:
        return {"known": False, "index": -1, "uuid": "", "serial": "", "pci": "", "name": ""}
    return {
        "known": True,
        "index": gpu.index,
        "uuid": gpu.uuid,
        "serial": gpu.serial,
        "pci": gpu.pci,
        "name": gpu.name,
        "memory_total_bytes": gpu.memory_total_bytes,
    }


def _bounded(value: float | int | str | bool) -> float | int | str | bool:
    """CEL's integers have 64 bits; a larger one is a float, and as absurd as before. Text is given its type again."""
    if isinstance(value, str):
        return _typed(value)
    return float(value) if isinstance(value, int) and abs(value) > _INT64 else value


def _typed(text: str) -> float | int | str | bool:
    """The reference sends numbers as text and reads them back as int, float, bool, then text."""
    if len(text) <= 18 and re.fullmatch(r"-?\d{1,17}", text):
        return int(text)
    if len(text) <= 32 and re.fullmatch(r"-?\d{1,17}\.\d{1,12}", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
