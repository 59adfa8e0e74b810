"""Builders for tests of health: a node that is active, a report with one Xid, a context."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from navarch_common.events.messages import HealthReport, Heartbeat, Observation
from navarch_common.model.gpu import Gpu
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import Instance, NodeRecord, Phase, ProviderState, Registration
from navarch_health.verdict import Context, first_sight

T0 = datetime(2026, 1, 1, tzinfo=UTC)
BOOT = "boot-one"


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def gpu(index: int) -> Gpu:
    return Gpu(index=index, uuid=f"GPU-{index}", serial=f"S{index}", pci=f"0000:{0x38 + index:02x}:00", name="H100")


def registration(boot_id: str = BOOT, *, generation: int = 1, gpus: int = 8) -> Registration:
    return Registration(
        at=T0,
        boot_id=boot_id,
        generation=generation,
        hostname="machine-1",
        addresses=("10.0.0.1",),
        driver="570.1",
        driver_state="ok",
        gpus=tuple(gpu(index) for index in range(gpus)),
    )


def node(name: str = "training-aaaaaaa", **fields: Any) -> NodeRecord:
    values: dict[str, Any] = {
        "node": name,
        "pool": "training",
        "generation": 1,
        "phase": Phase.ACTIVE,
        "phase_since": T0,
        "created_at": T0,
        "registration": registration(),
        "instance": Instance(
            provider="local",
            instance_id=f"i-{name}",
            provider_id=f"navarch://test/{name}",
            region="here",
            state=ProviderState.RUNNING,
            state_at=T0,
            launched_at=T0,
        ),
    }
    return NodeRecord(**{**values, **fields})


def context(at: float = 0.0, trace: str = "") -> Context:
    return Context(cluster="test", now=T0 + seconds(at), trace=trace)


def record(of: NodeRecord | None = None) -> HealthRecord:
    """The record of a node that nothing has been heard of."""
    return first_sight(of or node(), context()).record


def observation(at: float = 0.0, **fields: Any) -> Observation:
    return Observation(at=T0 + seconds(at), **{"event_type": "xid", **fields})


def xid(
    code: int, at: float = 0.0, *, pci: str = "0000:3b:00", message: str = "said the driver", **fields: Any
) -> Observation:
    return observation(at, code=code, pci=pci, message=message, system="DCGM_HEALTH_WATCH_DRIVER", **fields)


def report(*observations: Observation, sequence: int = 1, boot_id: str = BOOT, **fields: Any) -> HealthReport:
    values = {"node": "training-aaaaaaa", "pool": "training", "generation": 1, "at": T0, **fields}
    return HealthReport(boot_id=boot_id, sequence=sequence, observations=observations, **values)


def heartbeat(name: str = "training-aaaaaaa", sequence: int = 1, **fields: Any) -> Heartbeat:
    values: dict[str, Any] = {
        "pool": "training",
        "generation": 1,
        "boot_id": BOOT,
        "at": T0,
        "interval_s": 5.0,
        "driver_state": "ok",
    }
    return Heartbeat(node=name, sequence=sequence, **{**values, **fields})


STATUS = HealthStatus
